"""What runs inside the processes of a chaos run: the services' own programs, with places at which they can be told to die.

A process that finds the file of an instant in the run's folder removes it and kills itself there. The engine of a replica is the
paced one of the benchmark of faults; a sabotaged learner is one with a fault that the harness has to catch.

    python -m tests.chaos.entries RUN_FOLDER SERVICE ARGUMENT...     # a service as a program of its own
"""

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

import learner.__main__
import rollout.__main__
import verifier.__main__
from benchmarks.weight_faults import PacedEngine
from learner.checkpoint import Checkpoints
from learner.intake.collector import Collector
from learner.intake.intake import Intake
from learner.intake.ledger import Ledger
from learner.publish.publisher import WeightPublisher
from services import entry
from services.config import RunConfig
from services.streams.names import SCORED
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.streams.stream import Claim
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory
from tests.chaos.clocks import clock_of, follow
from tests.chaos.instants import AT_A_SWAP, INSTANTS, PACE, order, room_of
from tests.chaos.networks import DEVICE, enter
from tests.chaos.processes import Place

PLACES: dict[str, tuple[type, str]] = {
    "issuing a prompt": (RedisIssueLog, "issue"),
    "a step is settled": (Intake, "settle"),
    "a version is published": (WeightPublisher, "publish"),
    "a checkpoint has its name": (Checkpoints, "commit"),
    "acknowledging": (Intake, "acknowledge"),
    "handing over": (RedisStream, "hand_over_many"),
}


class ChaosEngine(PacedEngine):
    """Half of what it samples is right, whatever the weights: a run of it has steps and accounts, and no accuracy."""

    def __init__(self, folder: Path, replica_id: str) -> None:
        super().__init__(order(folder, replica_id, AT_A_SWAP))
        self._pace = folder / PACE

    async def sample(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        self.seconds_per_group = float(self._pace.read_text(encoding="utf-8"))
        sampled = await super().sample(prompt)
        self.sampled.clear()
        return tuple(msgspec.structs.replace(one, text=_text(one, prompt.reference)) for one in sampled)


def _text(one: Trajectory, reference: str) -> str:
    return reference if int(one.token_ids.numpy().sum()) % 2 else "?"


def _die_at_instants(folder: Path, service: str) -> None:
    """Put the places at which this process may be told to die into its program."""
    for instant in INSTANTS[room_of(service)]:
        when, _, place = instant.partition(" ")
        if place in PLACES:
            _wrap(*PLACES[place], when == "before", order(folder, service, instant))


def _wrap(owner: type, name: str, before: bool, flag: Path) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            _die_if(flag)
        answer = original(*args, **kwargs)
        if not before:
            _die_if(flag)
        return answer

    setattr(owner, name, wrapped)


def _die_if(flag: Path) -> None:
    if flag.exists():
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def acknowledge_early() -> None:
    """Sabotage: what the learner claims is acknowledged before a step has trained on it, and long before a checkpoint has it."""
    claim = RedisStream.claim

    def claim_and_acknowledge(stream: RedisStream, count: int, block_s: float) -> list[Claim]:
        claims = claim(stream, count, block_s)
        if stream.name == SCORED:
            stream.acknowledge(claims)
        return claims

    setattr(RedisStream, "claim", claim_and_acknowledge)  # noqa: B010 - a method is replaced


class _Forgetful(set[int]):
    def __contains__(self, _: object) -> bool:
        return False


def train_on_repeats() -> None:
    """Sabotage: the learner does not know what it has had."""
    begin = Collector.__init__

    def forgetful(collector: Collector, *args: Any, **kwargs: Any) -> None:
        begin(collector, *args, **kwargs)
        setattr(collector, "_in_hand", _Forgetful())  # noqa: B010 - the fault is in a private place

    setattr(Collector, "__init__", forgetful)  # noqa: B010
    setattr(Ledger, "is_settled", lambda *_: False)  # noqa: B010


SABOTAGES: dict[str, Callable[[], None]] = {
    "acknowledges before the step": acknowledge_early,
    "does not know repeats": train_on_repeats,
}


def run_forked(service: str, arguments: Sequence[str], place: Place) -> None:
    """Be this service, in a process that has just been forked. It never returns."""
    os.setsid()  # as the supervisor's own services: a process group that can be cleared away
    os.environ.update(place.environment)
    with place.log.open("ab") as lines:
        os.dup2(lines.fileno(), sys.stdout.fileno())
        os.dup2(lines.fileno(), sys.stderr.fileno())
    if place.namespace is not None:
        enter(place.namespace)
        os.environ["GLOO_SOCKET_IFNAME"] = DEVICE
    run(service, arguments, place.folder, place.engine, place.sabotage)


def run(
    service: str, arguments: Sequence[str], folder: Path, engine: str = "paced", sabotage: str | None = None
) -> None:
    """Be this service. It never returns.

    folder: of the run, where its clock and the orders to die are. engine: a stage.Engine. sabotage: a name in SABOTAGES, for a
    learner.
    """
    torch.set_num_threads(1)
    sys.argv = [service, *arguments]
    follow(clock_of(folder, service))
    _die_at_instants(folder, service)
    room = room_of(service)
    if room == "learner":
        if sabotage is not None:
            SABOTAGES[sabotage]()
        entry.end(learner.__main__.main)
    if room == "rollout" and engine == "real":
        entry.end(rollout.__main__.main)
    if room == "rollout":

        def paced(config: RunConfig) -> ChaosEngine:
            return ChaosEngine(folder, service)

        entry.end(lambda: rollout.__main__.main(paced))
    entry.end(verifier.__main__.main)


if __name__ == "__main__":
    run(sys.argv[2], sys.argv[3:], Path(sys.argv[1]))
