"""What a run of real processes is set up from: its settings, its services, and how fast its engines are."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from services.command.supervisor import Service
from services.config import RunConfig
from services.config.load import load
from services.entry import REDIS_URL_VARIABLE
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from tests.chaos.instants import PACE, room_of
from tests.chaos.processes import ForkedService

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/addition"
Engine = Literal["paced", "real"]
LEASE_S = 3.0
SOONER = f"deadlines.lease_s={LEASE_S}", "deadlines.reclaim_idle_s=6.0", "deadlines.shutdown_s=20.0"
"""Deadlines that say how soon claims and leases move on; all others are as they come."""
PACED = (
    "rollout.max_concurrent_sequences=64",
    "evaluation.every_steps=1000000",
    "evaluation.max_prompts=4",
    "weights.max_mismatch_nats=1e6",
    "weights.max_gap_nats=1e6",
)
"""An engine without a model has neither accuracy nor log-probs that anybody could compare."""


def settings_of(folder: Path, overrides: Sequence[str], engine: Engine = "paced") -> RunConfig:
    """The settings of a run of examples/addition whose folder is in this one. overrides: as on a command line."""
    own = [f"runs_folder={folder}", "verifier.processes=1", *SOONER, *(PACED if engine == "paced" else ())]
    return load(EXAMPLE / "addition.toml", [*own, *overrides])


def services_of(
    folder: RunFolder,
    names: Sequence[str],
    redis_url: Callable[[str], str],
    *,
    engine: Engine = "paced",
    sabotage: str | None = None,
    network: Callable[[str], Path | None] = lambda _: None,
) -> dict[str, ForkedService]:
    """The services of these names, none of them started.

    redis_url: of each, by its name. sabotage: a name in entries.SABOTAGES, for the learner. network: the namespace of each;
    None: this process's.
    """
    return {
        name: ForkedService(
            name,
            _arguments(folder, name),
            folder.logs / f"{name}.log",
            {REDIS_URL_VARIABLE: redis_url(name)},
            folder=folder.path,
            engine=engine,
            sabotage=sabotage if name == "learner" else None,
            namespace=network(name),
        )
        for name in names
    }


def fresh_services_of(folder: RunFolder, names: Sequence[str], redis_url: Callable[[str], str]) -> dict[str, Service]:
    """The same with paced engines as programs of their own, whose memory is nobody else's; a start takes ten seconds."""
    return {
        name: Service(
            name,
            [sys.executable, "-m", "tests.chaos.entries", str(folder.path), name, *_arguments(folder, name)],
            folder.logs / f"{name}.log",
            {REDIS_URL_VARIABLE: redis_url(name), "PYTHONPATH": str(ROOT)},
        )
        for name in names
    }


def _arguments(folder: RunFolder, name: str) -> list[str]:
    settings = [str(folder.settings), "--services-folder", str(folder.services)]
    return [*settings, *(["--replica-id", name] if room_of(name) == "rollout" else [])]


def set_pace(folder: RunFolder, group_s: float) -> None:
    """Make every paced engine take so long for a group from now on."""
    draft = folder.path / f"{PACE}.draft"
    draft.write_text(str(group_s), encoding="utf-8")
    draft.rename(folder.path / PACE)


def steps_taken(folder: RunFolder) -> int:
    """Steps so far, those that were repeated again."""
    return folder.steps.read_bytes().count(b"\n") if folder.steps.exists() else 0


def last_step(folder: RunFolder) -> int:
    """The highest step so far; 0 before the first."""
    return max((int(row["step"]) for row in read_json_lines(folder.steps)), default=0) if folder.steps.exists() else 0


def make_example() -> None:
    """Write the model and the data of examples/addition, where they are not there yet."""
    subprocess.run([sys.executable, str(EXAMPLE / "make_example.py")], check=True, stdout=subprocess.DEVNULL)
