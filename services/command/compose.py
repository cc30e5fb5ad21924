"""`ratchet compose`: writes the Compose file of a host with several GPUs: docker-compose.yml with one replica a GPU.

It is a whole file and not an override: the two generations of Compose add an override's list of devices to the one that is there.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from services.config import RunConfig
from services.config.load import load
from services.entry import DONE
from services.errors import InputError

SOURCE = "docker-compose.yml"
OUTPUT = Path("docker-compose.gpus.yml")
MARK = "# Written by `ratchet compose`"
PROFILE = "gpu"
LEARNER, ROLLOUT, VERIFIER, PAGE = "learner-gpu", "rollout-gpu", "verifier-gpu", "page-gpu"
MOUNTED = ("deploy/runs", "examples")
"""The folders with run files that services see."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ratchet compose` besides those of every command that reads settings."""
    parser.add_argument("--gpus", type=int, required=True, metavar="N", help="GPUs of this host, numbered from 0")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help=f"the file to write, beside {SOURCE} (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the file for a run; returns the exit code. Raises InputError if GPUs are too few or another file is in the way."""
    config = load(arguments.config, arguments.overrides)
    output: Path = arguments.output
    source = output.parent / SOURCE
    if not source.is_file():
        raise InputError(f"--output: there is no {SOURCE} beside {output}; call this in the repository's folder")
    if output.exists() and not output.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        raise InputError(f"--output: {output} is there and is not ours; move it, or name another file")
    command = run_command(arguments.config, source.parent.resolve(), arguments.overrides)
    written = dealt_out(yaml.safe_load(source.read_text(encoding="utf-8")), config, command, arguments.gpus)
    text = yaml.safe_dump(written, sort_keys=False, width=120)
    output.write_text(f"{MARK}; call that again rather than edit this.\n{text}", encoding="utf-8")
    replicas = sum(name.startswith(ROLLOUT) for name in written["services"])
    print(
        f"{output}: GPUs 0 to {config.learner.ranks - 1} for the learner, {replicas} replicas of "
        f"{config.rollout.tensor_parallel} each; start it with: docker compose -f {output} --profile {PROFILE} up"
    )
    return DONE


def run_command(run_file: Path, root: Path, overrides: Sequence[str]) -> list[str]:
    """The arguments that each service gets: the run file as it is called in a container, and the settings of --set.

    root: the folder of docker-compose.yml. Raises InputError if services do not see the file.
    """
    named = run_file.resolve()
    if not any(named.is_relative_to(root / folder) for folder in MOUNTED):
        raise InputError(f"{run_file} is not in {' or '.join(MOUNTED)} of {root}, which services see; copy it there")
    return [str(named.relative_to(root)), *(part for each in overrides for part in ("--set", each))]


def dealt_out(compose: dict[str, Any], config: RunConfig, arguments: Sequence[str], gpus: int) -> dict[str, Any]:
    """The Compose file whose learner has the first GPUs, one for each rank, and whose replicas have the others.

    compose: docker-compose.yml as it was read. Services of other profiles are left out. Raises InputError if there are too few
    GPUs for one replica.
    """
    ranks, width = config.learner.ranks, config.rollout.tensor_parallel
    if config.device != "cuda":
        raise InputError(
            f'the run has device = "{config.device}" and takes no GPU; '
            "`docker compose --profile cpu up --scale rollout=N` starts it"
        )
    if gpus < ranks + width:
        raise InputError(
            f"--gpus {gpus}: the learner takes {ranks} (learner.ranks) and a replica {width} (rollout.tensor_parallel); give "
            f"{ranks + width} or more, or let them share one as docs/deploying.md says"
        )
    of_profile = {n: s for n, s in compose["services"].items() if PROFILE in s.get("profiles", [PROFILE])}
    services: dict[str, Any] = {n: s for n, s in of_profile.items() if n not in (LEARNER, ROLLOUT, VERIFIER, PAGE)}
    services[VERIFIER] = {**of_profile[VERIFIER], "command": ["verifier", *arguments]}
    page = of_profile[PAGE]
    services[PAGE] = {**page, "command": ["page", *arguments, *page["command"][2:]]}
    learner = _on(of_profile[LEARNER], range(ranks))
    learner["command"] = ["learner", *arguments]
    if ranks > 1:
        learner["entrypoint"] = ["torchrun", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    services[LEARNER] = learner
    for number, first in enumerate(range(ranks, gpus - width + 1, width), start=1):
        replica = _on(of_profile[ROLLOUT], range(first, first + width))
        replica["command"] = ["rollout", *arguments]
        services[ROLLOUT if number == 1 else f"{ROLLOUT}-{number}"] = replica
    return {**{key: value for key, value in compose.items() if not key.startswith("x-")}, "services": services}


def _on(service: dict[str, Any], gpus: Sequence[int]) -> dict[str, Any]:
    """A copy of the service that has these GPUs and no others."""
    one = copy.deepcopy(service)
    (device,) = one["deploy"]["resources"]["reservations"]["devices"]
    device["device_ids"] = [str(gpu) for gpu in gpus]
    return one
