"""The `ratchet` command. It starts what it is asked for; the rooms themselves run as processes of their own."""

import argparse
import os
import sys
from pathlib import Path

from services import entry, library_logs
from services.command.objective_check import check_objective
from services.config.load import load, render_masked
from services.errors import InputError

ROOMS = ("rollout", "verifier", "learner")


def main() -> None:
    entry.end(_main)


def _main() -> int:
    # A room reads its own arguments: it may run on a host that has nothing else of ours installed.
    if len(sys.argv) > 1 and sys.argv[1] in ROOMS:
        environment = {**os.environ, **library_logs.environment(os.environ)}
        os.execve(sys.executable, [sys.executable, "-m", sys.argv[1], *sys.argv[2:]], environment)
    if len(sys.argv) > 1 and sys.argv[1] == "verify":
        os.execv(sys.executable, [sys.executable, "-m", "verifier.offline.__main__", *sys.argv[2:]])
    arguments = _parser().parse_args()
    code: int = arguments.run(arguments)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ratchet", description="Asynchronous RL post-training, as plain services.")
    commands = parser.add_subparsers(required=True, metavar="command")

    up = commands.add_parser("up", help="everything on this machine, supervised; called again, it resumes")
    entry.add_config_arguments(up)
    up.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")
    up.set_defaults(run=_up)

    for room, what in (("rollout", "one replica"), ("verifier", "the scoring service"), ("learner", "the learner")):
        commands.add_parser(room, help=f"{what}, alone; see ratchet {room} --help", add_help=False)

    commands.add_parser("verify", help="score a file of responses; see ratchet verify --help", add_help=False)

    evaluation = commands.add_parser("eval", help="held-out accuracy of a model or of a run's latest checkpoint")
    entry.add_config_arguments(evaluation)
    evaluation.add_argument("--model", type=Path, help="a model folder; default: the run's latest checkpoint")
    evaluation.set_defaults(run=_evaluate)

    status = commands.add_parser("status", help="where a run stands")
    status.add_argument("folder", type=Path, help="the run's folder, such as runs/addition")
    status.set_defaults(run=_status)

    config = commands.add_parser("config", help="check a configuration and print the resolved settings")
    entry.add_config_arguments(config)
    config.set_defaults(run=_config)

    doctor = commands.add_parser("doctor", help="what is missing on this machine, or does not fit, and what to do")
    doctor.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    doctor.set_defaults(run=_doctor)
    return parser


def _config(arguments: argparse.Namespace) -> int:
    config = load(arguments.config, arguments.overrides)
    check_objective(config)
    print(render_masked(config), end="")
    return entry.DONE


def _up(arguments: argparse.Namespace) -> int:
    config = load(arguments.config, arguments.overrides)
    if arguments.dry_run:
        check_objective(config)
        print(render_masked(config), end="")
        return entry.DONE
    from services.command import up

    return up.up(config)


def _evaluate(arguments: argparse.Namespace) -> int:
    from services.command import up

    config = load(arguments.config, arguments.overrides)
    if config.evaluation is None:
        raise InputError(f"{arguments.config} has no [evaluation] section, so there is nothing to evaluate on")
    return up.evaluate(config, arguments.model)


def _status(arguments: argparse.Namespace) -> int:
    from services.command import status

    print(status.describe(arguments.folder))
    return entry.DONE


def _doctor(arguments: argparse.Namespace) -> int:
    from services.command import doctor

    findings = doctor.diagnose(arguments.device)
    print(doctor.render(findings))
    return entry.DONE if all(finding.ok for finding in findings) else entry.BAD_INPUT
