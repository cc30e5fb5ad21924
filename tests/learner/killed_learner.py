"""A learner as a process over a real server, whose engine ends the process where a batch has a certain token."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from learner.batch.micro_batch import MicroBatch
from learner.engine.protocol import Backward, LossFunction, Policy, TokenStatistics
from services import cause, entry
from services.cause import CAUSE_VARIABLE
from services.command.supervisor import Service
from services.config import RunConfig
from services.entry import DONE, SUPERVISED_VARIABLE
from services.streams.names import DEAD, PROMPTS, SCORED
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.streams.stream import NEVER_SUSPECT
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from tests.chaos.processes import Forked
from tests.fakes.train_engine import BigramEngine, R
from tests.learner.small_run import Rooms, SmallRun, small_config

MARK = 13
"""The token."""
MARKED = 5
"""The group that has it."""
KILLED = 9


class DyingEngine(BigramEngine):
    def token_statistics(self, micro_batches: Sequence[MicroBatch], policy: Policy) -> list[TokenStatistics]:
        _die_of(micro_batches)
        return super().token_statistics(micro_batches, policy)

    def backward(self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R]) -> Backward[R]:
        _die_of(micro_batches)
        return super().backward(micro_batches, loss)


def _die_of(micro_batches: Sequence[MicroBatch]) -> None:
    if any((one.token_ids == MARK).any() for one in micro_batches):
        os._exit(KILLED)


class OwnStream(RedisStream):
    """With what SmallRun asks of a stream besides."""

    def __init__(self, connection: RedisConnection, run: str, name: str, consumer: str) -> None:
        super().__init__(connection, run, name, consumer, 1e8, suspect_deliveries=NEVER_SUSPECT)
        self._log = RedisIssueLog(connection, self)

    def as_consumer(self, _: str) -> "OwnStream":
        return self

    def append(self, payload: bytes) -> None:
        self._log.issue_again(payload)


class RealRooms(Rooms):
    """What is issued goes through the stream of prompts, and is answered at once."""

    def __init__(self, run: "RealRun", connection: RedisConnection, prompts: OwnStream, scored: OwnStream) -> None:
        server: Any = prompts
        super().__init__(run, server)
        self._numbers = RedisIssueLog(connection, prompts)
        self._open = prompts
        self._done = scored

    def issue(self, sequence_number: int, payload: bytes) -> bool:
        new = self._numbers.issue(sequence_number, payload)
        self._pass_on()
        return new

    def issue_many(self, first_number: int, payloads: Sequence[bytes]) -> int:
        new = self._numbers.issue_many(first_number, payloads)
        self._pass_on()
        return new

    def issue_again(self, payload: bytes) -> None:
        self._numbers.issue_again(payload)
        self._pass_on()

    def issued_count(self) -> int:
        return self._numbers.issued_count()

    def advance(self, count: int) -> None:
        self._numbers.advance(count)

    def first_token(self, prompt: Prompt, index: int) -> int:
        is_marked = prompt.sequence_number == MARKED and prompt.purpose == "train"
        return MARK if is_marked else super().first_token(prompt, index)

    def _pass_on(self) -> None:
        for claim in self._open.claim(64, 0.0):
            answer = self.answered(decode(claim.payload, Prompt), [1.0, 0.0])
            self._open.hand_over(claim, self._done, encode(answer))


class RealRun(SmallRun):
    def __init__(self, config: RunConfig, connection: RedisConnection) -> None:
        super().__init__(config, engine=DyingEngine)
        prompts, scored, dead = (
            OwnStream(connection, config.name, name, consumer)
            for name, consumer in ((PROMPTS, "rollout"), (SCORED, "learner"), (DEAD, "learner"))
        )
        self.rooms = RealRooms(self, connection, prompts, scored)
        self.prompts: Any = prompts
        self.scored: Any = scored
        self.dead: Any = dead


def config_of(folder: Path, name: str) -> RunConfig:
    return small_config(
        folder, f"name={name}", "learner.groups_per_step=4", "learner.steps=6", "evaluation.every_steps=99"
    )


def run(folder: Path, name: str, redis_url: str, log: Path, environment: dict[str, str]) -> None:
    """Be one start of the learner. It never returns."""
    os.setsid()
    os.environ.update(environment)
    with log.open("ab") as lines:
        os.dup2(lines.fileno(), sys.stdout.fileno())
        os.dup2(lines.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    entry.start_logging("learner")

    def main() -> int:
        start = RealRun(config_of(folder, name), RedisConnection(redis_url, deadline_s=10.0)).start()
        if start.beginning.checkpoint is None:
            start.intake.restore()
        start.run()
        return DONE

    entry.end(main)


@dataclass
class ForkedLearner(Service):
    """A service whose process is forked from one that has imported everything."""

    context: Any = None
    arguments: tuple[Any, ...] = ()
    starts: int = 0

    def start(self) -> None:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        cause.make_room(self.cause_path)
        environment = {SUPERVISED_VARIABLE: str(os.getpid()), CAUSE_VARIABLE: str(self.cause_path.resolve())}
        process = self.context.Process(target=run, args=(*self.arguments, self.log_path, environment))
        process.start()
        self.starts += 1
        self.process = cast("Any", Forked(process))
