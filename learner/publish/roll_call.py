"""One question to the members of a generation, their answers, and, after a failure, which members caused it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from services.clock import Deadline, now_s
from services.errors import DeadlineExceeded, WeightSyncError, WireError
from services.metrics import waiting
from services.weights.membership import MessageReader
from services.wire.membership import Confirmation

log = logging.getLogger("ratchet.learner")

LAST_WORDS_S = 3.0
"""How long members may take after a failure to report it before they count as silent."""


@dataclass(frozen=True)
class _Question:
    phase: Literal["joined", "swapped"]
    pg_generation: int
    policy_version: int | None
    """None when any version will do."""
    members: dict[str, str]
    """replica_id -> incarnation"""

    def is_answered_by(self, message: Confirmation) -> bool:
        """Whether this comes from a member, of the same incarnation, and is about the same phase, generation and version."""
        return (
            (message.phase, message.pg_generation) == (self.phase, self.pg_generation)
            and self.policy_version in (None, message.policy_version)
            and self.members.get(message.replica_id) == message.incarnation
        )


class RollCall:
    """Collects confirmations; those for any other question are ignored."""

    def __init__(self, reader: MessageReader) -> None:
        self._reader = reader
        self._question = _Question("joined", 0, None, {})
        self._answers: dict[str, Confirmation] = {}

    def ask(
        self,
        phase: Literal["joined", "swapped"],
        pg_generation: int,
        members: dict[str, str],
        policy_version: int | None = None,
    ) -> None:
        """Begin a new question; call this before the announcement that puts it. members: replica_id -> incarnation."""
        self._question = _Question(phase, pg_generation, policy_version, members)
        self._answers = {}

    def collect(self, deadline: Deadline) -> list[Confirmation]:
        """Return the answer of each member. Raises WeightSyncError at the first refusal or after the deadline, naming the
        replicas.

        Waits for: an answer from every member of the generation.
        Until: the deadline of the caller (deadlines.weight_join_s or deadlines.weight_transfer_s).
        Ended by: the last answer, the first refusal, or the deadline.
        Metric: ratchet_waiting{room="learner", awaiting="replicas to join"}, or awaiting="replicas to confirm".
        """
        try:
            while self._silent() and not self._refusing():
                self._hear(min(deadline.remaining_s(), 1.0))
        except DeadlineExceeded:
            silent, question = ", ".join(sorted(self._silent())), self._question
            raise WeightSyncError(
                f"no word of {silent} ({question.phase}, generation {question.pg_generation}) within its deadline"
            ) from None
        for answer in self._answers.values():
            if answer.fault is not None:
                raise WeightSyncError(f"replica {answer.replica_id} refused: {answer.fault}")
        return list(self._answers.values())

    def at_fault(self, give_up: Callable[[], None]) -> dict[str, str]:
        """Return the members that caused a failure: replica_id -> incarnation, at least one. give_up: leaves the group.

        Silence of one and giving up make the others fail, so the silent come first, then those that refused before the group
        was given up, then those that refused after. If every member did as asked, the learner's own end failed: all are named.

        Waits for: word from the members that have not answered yet.
        Until: LAST_WORDS_S, 3 seconds.
        Ended by: an answer from every member, or that time.
        Metric: ratchet_waiting{room="learner", awaiting="the cause of a failed broadcast"}.
        """
        self._hear(0.0)
        refusing, deadline_s = self._refusing(), now_s() + LAST_WORDS_S
        give_up()
        with waiting("learner", "the cause of a failed broadcast"):
            while self._silent() and (remaining_s := deadline_s - now_s()) > 0:
                self._hear(min(remaining_s, 1.0))
        members = self._question.members
        return {each: members[each] for each in self._silent() or refusing or self._refusing() or members}

    def _hear(self, block_s: float) -> None:
        """Take in what has been said, waiting up to block_s seconds for the first message."""
        try:
            for message in self._reader.read(block_s):
                if isinstance(message, Confirmation) and self._question.is_answered_by(message):
                    self._answers[message.replica_id] = message
        except WireError as fault:
            log.warning("the confirmation of a replica cannot be read; the replica counts as silent: %s", fault)

    def _silent(self) -> set[str]:
        return self._question.members.keys() - self._answers.keys()

    def _refusing(self) -> set[str]:
        return {replica_id for replica_id, answer in self._answers.items() if answer.fault is not None}
