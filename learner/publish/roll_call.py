"""One question to the members of a generation, their answers, and, after a failure, which members caused it."""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from learner.publish.stragglers import Stragglers
from services.clock import Deadline, now_s
from services.errors import DeadlineExceeded, RatchetError, WeightSyncError, WireError
from services.metrics import waiting
from services.weights.membership import MessageReader
from services.wire.membership import Confirmation

log = logging.getLogger("ratchet.learner")

LAST_WORDS_S = 3.0
"""How long members may take after a failure to report it before they count as silent."""
LAST_WORDS_AFTER_OTHERS_S = 1.0
"""How long they may take after the last that did."""
LOOK_EVERY_S = 0.2
"""How often a wait looks at what else may end it."""
REMEMBERED = 8
"""Questions of a kind that say how long such a question takes."""


class Stopped(RatchetError):
    """The run was asked to stop, or the publisher to end, in the middle of a wait."""


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
    """Collects confirmations; those for any other question are kept for `others`."""

    def __init__(
        self,
        reader: MessageReader,
        lost: Callable[[Mapping[str, str]], set[str]],
        *,
        quiet: Callable[[Mapping[str, str]], set[str]],
        patience_s: float,
        stopping: Callable[[], bool],
    ) -> None:
        """lost: which of some incarnations are gone (`Attendance.lost`). quiet: which are, or have missed a renewal of their
        lease (`Attendance.quiet`). patience_s: deadlines.weight_patience_s. stopping: whether to give up any wait."""
        self._reader = reader
        self._lost = lost
        self._quiet = quiet
        self._patience_s = patience_s
        self._stopping = stopping
        self._others: list[Confirmation] = []
        self._took_s: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))  # by phase
        self.ask("joined", 0, {})

    def ask(
        self,
        phase: Literal["joined", "swapped"],
        pg_generation: int,
        members: dict[str, str],
        policy_version: int | None = None,
    ) -> None:
        """Begin a new question; call this before the announcement that puts it. members: replica_id -> incarnation."""
        self._question = _Question(phase, pg_generation, policy_version, members)
        self._answers: dict[str, Confirmation] = {}
        self._asked_s = now_s()
        usual_s = max(self._took_s[phase], default=None)
        self._answering = Stragglers(members, self._patience_s, asked_s=self._asked_s, usual_s=usual_s)
        self._coming = Stragglers(members, self._patience_s, asked_s=self._asked_s, usual_s=usual_s)
        self.absent: set[str] = set()
        """The members whose lease has run out, or was not renewed in time, or that were started again, when last looked."""

    def note_arrival(self, replica_id: str) -> None:
        """A member has come to the meeting of the generation; for any thread. Those that do not come are the late ones then."""
        self._coming.answered(replica_id, now_s())

    def collect(self, deadline: Deadline, work: "Future[None]", look: Callable[[], None]) -> list[Confirmation]:
        """Return the answers, once every member has answered that somebody still waits for, and `work` is done.

        work: what the learner does for the question in another thread: form a group, or send. It is left alone where the only
        ones that it could still be busy with are left behind. look: called now and then. Raises WeightSyncError at the first
        refusal, when `work` fails, when those that are late hold the others up, or after the deadline, naming the replicas;
        Stopped when the run was asked to stop.

        Waits for: an answer from the members of the generation.
        Until: the deadline of the caller (deadlines.weight_join_s or deadlines.weight_transfer_s); for a member behind half of
            the others, deadlines.weight_patience_s, 0.5 s where it does not renew its lease, or the lease's end.
        Ended by: the last answer that is waited for, the first refusal, the deadline, or the stop signal.
        Metric: ratchet_waiting{room="learner", awaiting="replicas to join"}, or awaiting="replicas to confirm".
        """
        looked_s = 0.0
        while (silent := self._answering.silent) or not work.done():
            if self._stopping():
                raise Stopped("the learner stops; weights that are on their way are given up")
            if work.done():
                work.result()
            self._heed_refusals()
            try:
                left_s = deadline.remaining_s()
            except DeadlineExceeded:
                raise self._no_word(silent, "within its deadline") from None
            self._hear(min(left_s, LOOK_EVERY_S if silent else LOOK_EVERY_S / 10))
            if now_s() - looked_s >= LOOK_EVERY_S:
                looked_s = now_s()
                look()
                if self._leave_behind():
                    break
        self._heed_refusals()
        return list(self._answers.values())

    def _leave_behind(self) -> bool:
        """Whether the answers so far are all that is waited for. Raises WeightSyncError where the others cannot do without those
        that are late."""
        stage = self._coming if self._question.phase == "joined" and self._coming.silent else self._answering
        gone, quiet = self._look_for(stage.silent)
        late = stage.to_leave_behind(gone, quiet, now_s())
        if not late:
            return False
        if late <= gone:
            why, which = "and its lease is gone", "is gone"
        elif late <= quiet:
            why, which = "and its lease was not renewed", "has not renewed its lease"
        else:
            why, which = "while the others are there", f"is {self._patience_s:g} s behind (deadlines.weight_patience_s)"
        if stage is self._coming or late != self._answering.silent or not self._answers:
            raise self._no_word(late, why)
        log.warning(
            "version %s: going on without %s, which %s; it catches up by itself",
            self._question.policy_version,
            ", ".join(sorted(late)),
            which,
        )
        return True

    def _look_for(self, silent: set[str]) -> tuple[set[str], set[str]]:
        """Which of these members are gone, and which are gone or have missed a renewal."""
        members = self._question.members
        quiet = self._quiet({each: members[each] for each in silent}) if silent else set()
        gone = self._lost({each: members[each] for each in quiet}) if quiet else set()
        self.absent = gone if quiet == set(members) else quiet  # where nobody renews, the server stood still
        return gone, quiet

    def left_behind(self) -> dict[str, str]:
        """The members that have not answered: replica_id -> incarnation."""
        members = self._question.members
        return {each: members[each] for each in self._answering.silent}

    def others(self) -> list[Confirmation]:
        """Take what was said to no question of now: a member that was left behind, or a replica that caught up by itself."""
        self._hear(0.0)
        others, self._others = self._others, []
        return others

    def at_fault(self, give_up: Callable[[], None]) -> dict[str, str]:
        """Return the members that caused a failure: replica_id -> incarnation. give_up: leaves the group.

        Silence of one and giving up make the others fail, so those that are gone or did not come come first, then the silent,
        then those that refused before the group was given up, then those that refused after. If every member did as asked, the
        learner's own end failed: all are named. If all are silent and none is known to be gone, the one that died cannot be told
        from those that are slow to notice: nobody is named, and the next meeting shows who comes.

        Waits for: word from the members that have not answered yet.
        Until: LAST_WORDS_S, 3 seconds, or LAST_WORDS_AFTER_OTHERS_S, 1 second, after the last word.
        Ended by: an answer from every member, a silent member's lease that ends or is not renewed in time, or that time.
        Metric: ratchet_waiting{room="learner", awaiting="the cause of a failed broadcast"}.
        """
        self._hear(0.0)
        members = self._question.members
        missing = (self._coming.silent if self._question.phase == "joined" else set()) - self._answers.keys()
        refusing = self._refusing()
        end_s = now_s() + (LAST_WORDS_AFTER_OTHERS_S if self._answers else LAST_WORDS_S)
        blamed = self.absent - self._answers.keys() or missing
        give_up()
        with waiting("learner", "the cause of a failed broadcast"):
            while not blamed and self._answering.silent and now_s() < end_s and not self._stopping():
                if self._hear(LOOK_EVERY_S):
                    end_s = min(end_s, now_s() + LAST_WORDS_AFTER_OTHERS_S)
                self._look_for(self._answering.silent)
                blamed = self.absent
        if not blamed and self._answering.silent == set(members):
            return {}
        blamed = blamed or self._answering.silent or refusing or self._refusing() or set(members)
        return {each: members[each] for each in blamed}

    def _hear(self, block_s: float) -> bool:
        """Take in what has been said, waiting up to block_s seconds for the first message; whether there was an answer."""
        before = len(self._answers)
        try:
            for message in self._reader.read(block_s):
                if not isinstance(message, Confirmation):
                    continue
                if self._question.is_answered_by(message):
                    self._answers[message.replica_id] = message
                    self._answering.answered(message.replica_id, now_s())
                    if not self._answering.silent and not self._refusing():
                        self._took_s[self._question.phase].append(now_s() - self._asked_s)
                else:
                    self._others.append(message)
        except WireError as fault:
            log.warning("the confirmation of a replica cannot be read; the replica counts as silent: %s", fault)
        return len(self._answers) > before

    def _heed_refusals(self) -> None:
        for answer in self._answers.values():
            if answer.fault is not None:
                raise WeightSyncError(f"replica {answer.replica_id} refused: {answer.fault}")

    def _refusing(self) -> set[str]:
        return {replica_id for replica_id, answer in self._answers.items() if answer.fault is not None}

    def _no_word(self, silent: set[str], why: str) -> WeightSyncError:
        question = self._question
        return WeightSyncError(
            f"no word of {', '.join(sorted(silent))} ({question.phase}, generation {question.pg_generation}) {why}"
        )
