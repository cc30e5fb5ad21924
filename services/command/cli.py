"""The `ratchet` command. It starts what it is asked for; the rooms themselves run as processes of their own."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from services import entry, library_logs, log_lines
from services.command import run_views
from services.command.compose import add_arguments as add_compose_arguments
from services.command.objective_check import check_objective
from services.command.plan_arguments import add_arguments as add_plan_arguments
from services.command.rooms import LEARNER, PAGE, REPLAY, ROLLOUT, SAFE_PATH, VERIFIER, VERIFY, python_module
from services.config import RunConfig
from services.config.load import load, render_masked
from services.errors import InputError

if TYPE_CHECKING:
    from services.command.shares import Choice

PROCESSES = {ROLLOUT: ROLLOUT, VERIFIER: VERIFIER, LEARNER: LEARNER, "verify": VERIFY, "page": PAGE, "replay": REPLAY}
"""Command -> the module that it becomes. It reads its own arguments: its host may have nothing else of ours installed."""


def main() -> None:
    entry.end(_main)


def _main() -> int:
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command in PROCESSES:
        argv = python_module(PROCESSES[command], *sys.argv[2:])
        os.execve(argv[0], argv, {**os.environ, **SAFE_PATH, **library_logs.environment(os.environ)})
    parser, known = _parser()
    if not command.startswith("-") and command not in known:
        raise InputError(_unknown(command, known))
    arguments = parser.parse_args()
    library_logs.apply()
    code: int = arguments.run(arguments)
    return code


def _unknown(command: str, known: list[str]) -> str:
    near = difflib.get_close_matches(command, known, n=1)
    what = f'"{command}" is not a command' if command else "no command was given"
    return what + (f'; did you mean "{near[0]}"?' if near else "; `ratchet --help` lists them")


def _parser() -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser and the names of its commands."""
    parser = entry.Parser(
        prog="ratchet",
        description="Asynchronous RL post-training of language models from verifiable rewards, as plain services.",
        epilog="`ratchet COMMAND --help` says more about one command.",
    )
    parser.add_argument(
        "--version", action="version", version=f"ratchet {entry.version()}", help="print the version and stop"
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")

    up = command("up", "run everything on this machine; called again, it resumes")
    entry.add_config_arguments(up)
    up.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")
    entry.add_log_format(up)
    up.set_defaults(run=_up)

    evaluation = command("eval", "measure a model or a run's checkpoint on held-out data")
    entry.add_config_arguments(evaluation)
    evaluation.add_argument(
        "--model", type=Path, metavar="FOLDER", help="a model folder (default: the run's latest checkpoint)"
    )
    evaluation.set_defaults(run=_evaluate)

    run_views.add_commands(command)

    commands.add_parser("page", help="show a run in a browser", add_help=False)

    commands.add_parser("verify", help="score a file of responses", add_help=False)

    commands.add_parser(
        "replay", help="take a recorded learner step again, as it was or with other settings", add_help=False
    )

    config = command(
        "config",
        "print all of a run's settings and check everything that they name: model, rows, references, addresses",
    )
    entry.add_config_arguments(config)
    config.add_argument(
        "--quick", action="store_true", help="leave out what takes long: the model's files and the rows of the datasets"
    )
    config.set_defaults(run=_config)

    plan = command("plan", "say whether a run will fit into memory, and what to change where it does not")
    entry.add_config_arguments(plan)
    add_plan_arguments(plan)
    plan.set_defaults(run=_plan)

    compose = command("compose", "write the Compose file of a host with several GPUs: one replica for each")
    entry.add_config_arguments(compose)
    add_compose_arguments(compose)
    compose.set_defaults(run=_compose)

    doctor = command("doctor", "say what this machine lacks, and what to do about it")
    entry.add_config_arguments(doctor, optional=True)
    doctor.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        help="what runs will use (default: that of the run file, or cpu without one)",
    )
    doctor.set_defaults(run=_doctor)

    for room, what in ((ROLLOUT, "one sampling replica"), (VERIFIER, "the scoring service"), (LEARNER, "the learner")):
        commands.add_parser(room, help=f"start {what} alone", add_help=False)
    return parser, list(commands.choices)


def _config(arguments: argparse.Namespace) -> int:
    from services.command import preflight, shares

    config = load(arguments.config, arguments.overrides)
    chosen = shares.chosen_here(config)
    # Before the settings are printed: what is wrong would be lost below them, and whoever keeps them in a file has none then.
    checked = preflight.check(shares.with_choices(config, chosen), quick=arguments.quick)
    _show(config, chosen)
    for warning in checked.warnings:
        print(f"ratchet: warning: {warning}", file=sys.stderr)
    return entry.DONE


def _show(config: RunConfig, chosen: "Sequence[Choice]") -> None:
    """Print the settings, and below them as comments what `ratchet up` would choose here."""
    print(render_masked(config), end="")
    for one in chosen:
        print(f"# chosen here: {one}")
    sys.stdout.flush()


def _plan(arguments: argparse.Namespace) -> int:
    from services.command import plan

    return plan.run(load(arguments.config, arguments.overrides), arguments)


def _compose(arguments: argparse.Namespace) -> int:
    from services.command import compose

    return compose.run(arguments)


def _up(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        from services.command import shares

        config = load(arguments.config, arguments.overrides)
        check_objective(config)
        _show(config, shares.chosen_here(config))
        return entry.DONE
    from services.command import up

    log_lines.choose(arguments.log_format)
    return up.up(load(arguments.config, arguments.overrides))


def _evaluate(arguments: argparse.Namespace) -> int:
    from services.command import evaluate

    config = load(arguments.config, arguments.overrides)
    if config.evaluation is None:
        raise InputError(f"{arguments.config} has no [evaluation] section, so there is nothing to evaluate on; add one")
    return evaluate.evaluate(config, arguments.model)


def _doctor(arguments: argparse.Namespace) -> int:
    from services.command import doctor

    if arguments.overrides and arguments.config is None:
        raise InputError("--set overrides a setting of a run file; give the file, as in `ratchet doctor RUN.toml`")
    run = load(arguments.config, arguments.overrides) if arguments.config else None
    findings = doctor.diagnose(arguments.device or (run.device if run else "cpu"), run)
    print(doctor.render(findings))
    return entry.DONE if all(finding.ok for finding in findings) else entry.BAD_INPUT
