"""One item on its way through the pool, and the batch it belongs to."""

import asyncio
import hashlib

import msgspec

from services.wire.score import Score
from verifier.pool.blame import Blame
from verifier.pool.protocol import Task

_encoder = msgspec.json.Encoder(order="deterministic")


class Batch:
    """What one caller waits for."""

    def __init__(self, size: int) -> None:
        self.scores: list[Score | None] = [None] * size
        self.unsettled = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, position: int, score: Score) -> None:
        self.scores[position] = score
        self.unsettled -= 1
        if self.unsettled == 0 and not self.done.done():
            self.done.set_result(None)


class Job:
    __slots__ = ("batch", "caller", "crashes", "deaths", "elapsed_s", "position", "second_look", "suspicion", "task")

    def __init__(self, batch: Batch, position: int, task: Task, caller: str) -> None:
        self.batch, self.position, self.task, self.caller = batch, position, task, caller
        self.deaths = 0
        """Processes that ended with this item in their hands, without anybody to blame."""
        self.crashes = 0
        """Processes that ended by themselves at this item."""
        self.second_look = False
        """It was killed at its deadline, and it was unclear whether the machine was at fault."""
        self.suspicion: Blame | None = None
        """What the response is held to have done, if its reference passes the check."""
        self.elapsed_s = 0.0
        """How long the response had been worked on when the suspicion arose."""

    @property
    def grader(self) -> str:
        return self.task.grader

    @property
    def characters(self) -> int:
        return len(self.task.response or "")

    @property
    def order(self) -> Task:
        """What the next process is asked."""
        if self.suspicion is None:
            return self.task
        return Task(self.task.grader, None, self.task.reference, self.task.options)

    @property
    def reference_key(self) -> bytes:
        """The same for all items whose check would be the same."""
        asked = (self.task.grader, self.task.reference, self.task.options)
        return hashlib.blake2b(_encoder.encode(asked), digest_size=16).digest()
