"""What runs inside the sandbox: a keeper, and a process that loads the program and forks for each test.

Started as `python -c SOURCE LIMITS COMMANDS RESULTS`, so it imports nothing of Ratchet; and it never learns what a test
expects. Once the program is loaded, its process belongs to the program: whatever it sends is only an answer, to be judged
outside. The keeper is the first process of the namespace, which signals from within cannot end: it ends, and the sandbox
with it, when the grader process is gone. bwrap --die-with-parent would leave a process behind when the grader process dies
at the wrong moment (https://github.com/containers/bubblewrap/issues/633).

COMMANDS and RESULTS are file descriptors. A command is a length (4 bytes) and JSON; a result is a letter, a length and
bytes. S: the limits are set. L: the program is loaded. R: a result, as JSON. X: what the program raised. E: how the
process of a test ended; sent when nothing that it started is left.

Its waits have no deadlines and no metrics of their own: session.py, outside, ends the sandbox when a time is over.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import resource
import select
import signal
import sys
import time
import types

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing it would take longer than the rest of this file
    from typing import Any, NoReturn

RAISED_CHARACTERS = 200  # of an exception's text
STACK_BYTES = 64 * 2**20
LEFTOVERS_S = 5.0
STREAMS = {f"{folder}{name}": fd for folder in ("/dev/fd/", "/proc/self/fd/") for fd, name in enumerate("012")}
STREAMS |= {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
# What contest sites import before the program, and their starter code takes for granted. docs/sandbox.md has this list.
GIVEN_MODULES = (
    "bisect collections copy datetime functools heapq io itertools json math operator random re statistics string sys "
    "typing"
)
GIVEN_NAMES = {
    "bisect": "bisect_left bisect_right insort insort_left insort_right",
    "collections": "Counter OrderedDict defaultdict deque namedtuple",
    "copy": "deepcopy",
    "decimal": "Decimal getcontext",
    "fractions": "Fraction",
    "functools": "cache cmp_to_key lru_cache partial reduce",
    "heapq": "heapify heappop heappush heappushpop heapreplace nlargest nsmallest",
    "itertools": "accumulate chain combinations combinations_with_replacement count cycle groupby islice pairwise permutations "
    "product repeat zip_longest",
    "math": "ceil comb factorial floor gcd inf isqrt lcm log log2 sqrt",
    "operator": "itemgetter",
    "string": "ascii_letters ascii_lowercase ascii_uppercase",
    "typing": "Any Callable DefaultDict Deque Dict FrozenSet Generator Generic Iterable Iterator List Mapping Optional Sequence "
    "Set Tuple Type TypeVar Union",
}


def main() -> types.CodeType | None:
    """Serve commands until there are none left. In the process of one test of a whole program, return its code, which is to
    be run as __main__ with nothing after it."""
    limits, commands, results = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    set_limits(limits)
    # `site` would add them, and is left out because importing it takes longer than everything else here.
    import _sitebuiltins

    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))
    sys.path[:] = [folder for folder in sys.path if folder]
    sys.argv[:] = ["program.py"]
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)  # it guards servers against floods; the limits below guard this process
    open_streams_by_name()
    keep(commands, results, limits["own_namespaces"])
    send(results, b"S")
    command = receive(commands)
    if command is None:
        return None
    load = json.loads(command)
    if load["entry_point"] is None:
        return serve_program(load["program"], commands, results, limits)
    serve_function(load["program"], load["entry_point"], commands, results, limits)
    return None


def set_limits(limits: dict[str, Any]) -> None:
    """Set the kernel's limits on this process and all that it starts."""
    memory = limits["memory_mb"] * 2**20
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_STACK: min(memory // 2, STACK_BYTES),
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_FSIZE: limits["file_mb"] * 2**20,
        resource.RLIMIT_NOFILE: limits["files"],
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 256,
    }
    if limits["own_namespaces"]:  # elsewhere it would count every process of the user
        wanted[resource.RLIMIT_NPROC] = limits["processes"]
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (limit, limit))


def keep(commands: int, results: int, own_namespaces: bool) -> None:
    """Return in a new process. This one stays and ends when that one does, or when nothing is left to write commands.

    Waits for: the new process, and the grader process at the other end of `commands`.
    Until: it is stopped.
    Ended by: the end of either of them.
    Metric: none; session.py waits outside.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a handler would let the program interrupt the keeper
    if own_namespaces:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process has to wait for those that end here
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return
    os.close(results)
    os.closerange(0, 3)
    either = select.poll()
    either.register(commands, 0)  # hang-up only
    either.register(os.pidfd_open(worker), select.POLLIN)
    either.poll()
    try:
        os.kill(worker, signal.SIGKILL)
    finally:
        os._exit(0)


def serve_function(program: str, entry_point: str, commands: int, results: int, limits: dict[str, Any]) -> None:
    """Load a program and call its function for each command, each time in a new process."""
    silence()
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True)  # not our __future__
        give(code, module.__dict__)
        exec(code, module.__dict__)
        find(module, entry_point)
    except BaseException as fault:
        send(results, b"X", raised(fault))
        return
    send(results, b"L")
    while (command := receive(commands)) is not None:
        child = os.fork()
        if child == 0:
            call(module, entry_point, command, results)
        send(results, b"E", ending(child, limits))


def call(module: types.ModuleType, entry_point: str, command: bytes, results: int) -> NoReturn:
    """Call the function, send what it returns or raises, and end this process."""
    own = os.getpid()
    try:
        test = json.loads(command)
        result = json.dumps(find(module, entry_point)(*test["args"], **test["kwargs"])).encode()
        if os.getpid() == own:  # and not one that the program forked
            send(results, b"R", result)
    except BaseException as fault:
        if os.getpid() == own:
            send(results, b"X", raised(fault))
    finally:
        os._exit(0)


def find(module: types.ModuleType, entry_point: str) -> Any:
    """The function called `name`, or `Class.method` of an instance made without arguments. A function that the module lacks
    is looked for in its class Solution, as on LeetCode."""
    found: Any = module
    if not hasattr(module, entry_point.partition(".")[0]) and hasattr(module, "Solution"):
        entry_point = f"Solution.{entry_point}"
    for name in entry_point.split("."):
        found = getattr(found() if isinstance(found, type) else found, name)
    if not callable(found):
        raise TypeError(f"{entry_point} is not callable")
    return found


def serve_program(program: str, commands: int, results: int, limits: dict[str, Any]) -> types.CodeType | None:
    """Compile a program, and return its code in a new process for each command; None in this one, at the end."""
    try:
        code = compile(program, "<program>", "exec", dont_inherit=True)
    except BaseException as fault:
        send(results, b"X", raised(fault))
        return None
    send(results, b"L")
    while (command := receive(commands)) is not None:
        child = os.fork()
        if child == 0:
            os.close(commands)
            os.close(results)
            read_from(json.loads(command)["stdin"])
            return code
        send(results, b"E", ending(child, limits))
    return None


def give(code: types.CodeType, names: dict[str, Any]) -> None:
    """Put into a program's names what it uses and would have to import. What it does not use is not imported: that takes
    time."""
    used: set[str] = set()
    unread = [code]
    while unread:
        part = unread.pop()
        used.update(part.co_names)
        unread += [inner for inner in part.co_consts if isinstance(inner, types.CodeType)]
    used -= vars(builtins).keys()
    for module in used.intersection(GIVEN_MODULES.split()):
        names[module] = __import__(module)
    for module, given in GIVEN_NAMES.items():
        for name in used.intersection(given.split()) - names.keys():
            if hasattr(__import__(module), name):  # older Pythons lack some
                names[name] = getattr(__import__(module), name)


def open_streams_by_name() -> None:
    """Let a program open /dev/stdin and its like: without /proc they lead nowhere."""
    open_file, open_fd = io.open, os.open

    def fd_of(file: Any) -> int | None:
        try:
            return STREAMS.get(os.fspath(file))
        except (TypeError, ValueError):
            return None

    def open_by_name(file: Any, *rest: Any, **named: Any) -> Any:
        fd = fd_of(file)
        return open_file(file if fd is None else os.dup(fd), *rest, **named)

    def open_fd_by_name(path: Any, *rest: Any, **named: Any) -> int:
        fd = fd_of(path)
        return open_fd(path, *rest, **named) if fd is None else os.dup(fd)

    for module in (builtins, io):
        module.open = open_by_name  # type: ignore[attr-defined]
    os.open = open_fd_by_name


def read_from(text: str) -> None:
    """Make the text standard input, as a file without a name: a pipe would have to be fed."""
    file = os.open(os.getcwd(), os.O_TMPFILE | os.O_RDWR, 0o600)
    content = memoryview(text.encode())
    while content:
        content = content[os.write(file, content) :]
    os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)
    os.close(file)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")


def ending(child: int, limits: dict[str, Any]) -> bytes:
    """The exit code, or the signal that ended it as a negative number, once every process that it left behind is gone.

    Waits for: the process of the test, then all that it started.
    Until: it is stopped; LEFTOVERS_S for what it started.
    Ended by: their end.
    Metric: none; session.py waits outside.
    """
    _, status = os.waitpid(child, 0)
    if limits["own_namespaces"] and os.getpid() == 2:  # on the host, -1 would be every process of the user
        give_up_s = time.monotonic() + LEFTOVERS_S
        while time.monotonic() < give_up_s:
            try:
                os.kill(-1, signal.SIGKILL)
            except ProcessLookupError:
                break
            reap()
            time.sleep(0.0005)
    return str(os.waitstatus_to_exitcode(status)).encode()


def reap() -> None:
    """Take note of all children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # no children are left, which is what the loop is for


def silence() -> None:
    """Send what a function prints nowhere: its answer is what it returns."""
    nowhere = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)


def raised(fault: BaseException) -> bytes:
    """An exception in words, cut short."""
    try:
        text = str(fault)
    except BaseException:
        text = "(its text cannot be read)"
    return f"{type(fault).__name__}: {text}"[:RAISED_CHARACTERS].encode("utf-8", "replace")


def send(results: int, letter: bytes, body: bytes = b"") -> None:
    message = memoryview(letter + len(body).to_bytes(4, "little") + body)
    while message:
        message = message[os.write(results, message) :]


def receive(commands: int) -> bytes | None:
    """The next command; None when the other side has closed.

    Waits for: a command from the grader process.
    Until: it is stopped.
    Ended by: the command, or the end of the grader process.
    Metric: none; session.py waits outside.
    """
    header = read_exactly(commands, 4)
    return None if header is None else read_exactly(commands, int.from_bytes(header, "little"))


def read_exactly(commands: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(commands, min(size, 2**20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    to_run = main()
    if to_run is not None:
        sys.modules["__main__"] = types.ModuleType("__main__")
        give(to_run, sys.modules["__main__"].__dict__)
        sys.modules["__main__"].__file__ = sys.argv[0]
        exec(to_run, sys.modules["__main__"].__dict__)
