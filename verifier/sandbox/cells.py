"""Runs programs for a policy that calls the tool `python`: the earlier ones of its conversation without their output, then the
new one, all in one process and with the same names, in a sandbox of their own."""

import json
from typing import NamedTuple

from verifier.sandbox.launch import Launcher
from verifier.sandbox.limits import Limits
from verifier.sandbox.session import Session, Stopped

RUN_CELLS = """
import ast, json, os, sys, traceback
told = json.loads(sys.stdin.read())
names = {"__name__": "__main__", "__builtins__": __builtins__}

def run(code):
    # What the last line is worth is shown, as in a notebook.
    tree = ast.parse(code, "<cell>")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec", dont_inherit=True), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "<cell>", "eval", dont_inherit=True), names)
        if value is not None:
            print(repr(value))

kept = [os.dup(fd) for fd in (1, 2)]
nowhere = os.open("/dev/null", os.O_WRONLY)
for fd in (1, 2):
    os.dup2(nowhere, fd)
for code in told["earlier"]:
    try:
        run(code)
    except BaseException:
        pass  # it was shown when this cell was the newest; what it made by then is there
sys.stdout.flush()
sys.stderr.flush()
for fd, own in zip((1, 2), kept):
    os.dup2(own, fd)
try:
    run(told["code"])
except SystemExit:
    raise
except BaseException as fault:
    sys.stdout.flush()
    said = traceback.TracebackException.from_exception(fault)
    said.stack = traceback.StackSummary.from_list([frame for frame in said.stack if frame.filename != "<program>"])
    print("".join(said.format(chain=False)), end="", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)
"""
"""The program that runs in the sandbox; it reads what it is to run from its standard input."""


class Ran(NamedTuple):
    """How a program ended."""

    output: str
    """What it printed."""
    errors: str
    """The end of what it printed on standard error: the exception that ended it, if one did."""
    exit_code: int
    """The signal that ended it, negative, if one did."""
    fault: str
    """The limit that it broke; empty if it broke none. Nothing else is known then."""


def run_cells(launcher: Launcher, limits: Limits, earlier: list[str], code: str) -> Ran:
    """Run the programs. Raises SandboxFailed when there is no sandbox.

    Waits for: the programs.
    Until: Limits.wall_s for all of them together, besides the sandbox's start.
    Ended by: the end of the last one, or a limit that one breaks.
    Metric: ratchet_verifier_running_programs, in the service.
    """
    with Session(launcher, limits) as session:
        try:
            session.load(RUN_CELLS, None)
            finished = session.test({"stdin": json.dumps({"earlier": earlier, "code": code})})
        except Stopped as stop:
            return Ran("", "", 0, str(stop))
    output, errors = (part.decode("utf-8", "replace") for part in (finished.output, finished.errors))
    return Ran(output, errors, finished.exit_code, "")
