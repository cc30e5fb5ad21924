"""One item on its way through the pool, and the batch that it belongs to."""

import asyncio
import hashlib

import msgspec

from services.wire.verdict import Score
from verifier.contract import ScoreItem
from verifier.pool.blame import Finding
from verifier.pool.protocol import GradeTask

_encoder = msgspec.json.Encoder(order="deterministic")


class Batch:
    """The items that one caller waits for."""

    def __init__(self, size: int) -> None:
        self.scores: list[Score | None] = [None] * size
        self.unsettled = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, position: int, score: Score) -> None:
        self.scores[position] = score
        self.unsettled -= 1
        if self.unsettled == 0 and not self.done.done():
            self.done.set_result(None)


class WorkItem:
    __slots__ = (
        "batch",
        "caller",
        "crashes",
        "elapsed_s",
        "finding",
        "item",
        "position",
        "second_look",
        "unexplained_ends",
    )

    def __init__(self, batch: Batch, position: int, item: ScoreItem, caller: str) -> None:
        self.batch = batch
        self.position = position
        self.item = item
        self.caller = caller
        self.unexplained_ends = 0
        """Processes that ended while they worked on this item and for which nothing is at fault."""
        self.crashes = 0
        """Processes that ended by themselves at this item."""
        self.second_look = False
        """Its process was killed at the deadline, and it was unclear whether the machine was at fault."""
        self.finding: Finding | None = None
        """How its process ended. While it is set, the reference answer is being checked: if that passes, the response is
        at fault."""
        self.elapsed_s = 0.0
        """How long the response had been worked on when the finding was made."""

    @property
    def grader(self) -> str:
        return self.item.grader

    @property
    def characters(self) -> int:
        return len(self.item.response)

    @property
    def task(self) -> GradeTask:
        """What the next process is asked."""
        if self.finding is None:
            return GradeTask(self.item)
        return GradeTask(msgspec.structs.replace(self.item, response=""), reference_only=True)

    @property
    def reference_key(self) -> bytes:
        """The same for all items whose reference answer would be checked in the same way."""
        asked = (self.item.grader, self.item.reference, self.item.options)
        return hashlib.blake2b(_encoder.encode(asked), digest_size=16).digest()
