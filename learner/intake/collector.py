"""Claims what comes back to the learner and sorts it: groups to train on, evaluation results, repeats, dead groups.

A claim stays claimed until a durable checkpoint holds its group as settled; `acknowledge` is called then. So after a crash
everything younger than the checkpoint comes again, and after a stop everything that was claimed and not trained on. A record
that cannot be read also goes to `dead`: otherwise it would end every start of the learner in the same way.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeVar

from learner.intake.ledger import Ledger
from learner.metrics import GROUPS
from services.clock import Deadline
from services.errors import DeadlineExceeded, WireError
from services.metrics import DEAD_GROUPS, waiting
from services.streams import Claim, Stream
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt, Trace, is_sent_again, trace
from services.wire.score import DeadGroup, ScoredGroup

log = logging.getLogger("ratchet.learner")
Taken = TypeVar("Taken")

CLAIM_AT_ONCE = 64
LOOK_EVERY_S = 1.0
"""Longest wait on the scored stream before the dead are looked at again."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A claim that has yet to be acknowledged."""

    stream: Stream
    claim: Claim
    sequence_number: int | None
    """The training group that has to be settled first; None if there is none."""

    @classmethod
    def of(cls, stream: Stream, claim: Claim, sequence_number: int | None) -> "Owed":
        """Without the payload, which would be kept until the checkpoint."""
        return cls(stream, replace(claim, payload=b""), sequence_number)


@dataclass
class Sampled:
    """What replicas sampled and the learner got back, whether or not it was trained on."""

    tokens: int = 0  # response tokens
    trajectories: int = 0


class Collector:
    """The learner's only reader of `scored` and `dead`. One thread at a time looks at them."""

    def __init__(
        self,
        scored: Stream,
        dead: Stream,
        ledger: Ledger,
        sampled: Sampled,
        note_death: Callable[[DeadGroup], None] = lambda _: None,
    ) -> None:
        """note_death: called for each group that is found dead, as often as it is."""
        self.lock = threading.RLock()
        """Held while anything of the intake changes: what is sorted here, the ledger, what is issued. Never during a wait for
        groups."""
        self._scored = scored
        self._dead = dead
        self._ledger = ledger
        self._sampled = sampled
        self._note_death = note_death
        self._training: deque[ScoredGroup] = deque()
        self._evaluation: dict[str, ScoredGroup | None] = {}
        self._owed: list[Owed] = []
        self._deaths: list[str] = []  # causes, of training groups
        self._in_hand: set[int] = set()  # sequence numbers of training groups that are claimed and not settled

    def training_group(
        self,
        take: Callable[[], Taken | None],
        deadline: Deadline,
        stopping: Callable[[], bool],
        between_looks: Callable[[], float],
    ) -> Taken | None:
        """Return what `take` gives, such as `ready_group`, once it gives something, or None once `stopping`. Raises
        DeadlineExceeded.

        between_looks is called before each look at the stream, so that credits that have come free go out, and returns how
        long that look may last, in seconds.

        Waits for: the next scored group.
        Until: the deadline of the caller, which holds for all groups of a step together (deadlines.groups_s).
        Ended by: arrival of a group, the stop signal, an error raised by `stopping`, or the deadline.
        Metric: ratchet_waiting{room="learner", awaiting="scored groups"}.
        """
        while (taken := take()) is None:
            if stopping():
                return None
            longest_s = between_looks()
            with waiting("learner", "scored groups"):
                self.look(min(deadline.remaining_s(), longest_s))
        return taken

    def ready_group(self, wants: Callable[[int], bool] = lambda _: True) -> ScoredGroup | None:
        """The next group that is claimed and not settled; None: there is none now. wants: asked with its sequence number; what is
        not wanted now keeps its place."""
        passed: list[ScoredGroup] = []
        with self.lock:
            while self._training:
                group = self._training.popleft()
                number = group.group.prompt.sequence_number
                if self._ledger.is_settled(number):
                    continue
                if wants(number):
                    self._training.extendleft(reversed(passed))
                    return group
                passed.append(group)
            self._training.extend(passed)
        return None

    def is_settled(self, sequence_number: int) -> bool:
        """Whether the group was trained on, dropped or dead; for any thread."""
        with self.lock:
            return self._ledger.is_settled(sequence_number)

    def evaluation(
        self,
        group_ids: list[str],
        deadline: Deadline,
        stopping: Callable[[], bool],
        between_looks: Callable[[], object] = lambda: None,
    ) -> list[ScoredGroup]:
        """Return the results of these evaluation groups except dead ones, or nothing once `stopping`. Raises DeadlineExceeded.

        between_looks: called before each look at the stream.

        Waits for: the results of every prompt of one evaluation.
        Until: the deadline of the caller (deadlines.evaluation_s).
        Ended by: arrival of the last result, dead groups included, the stop signal, an error raised by `stopping`, or the
        deadline.
        Metric: ratchet_waiting{room="learner", awaiting="evaluation"}.
        """
        while not all(group_id in self._evaluation for group_id in group_ids):
            if stopping():
                return []
            between_looks()
            try:
                with waiting("learner", "evaluation"):
                    self.look(min(deadline.remaining_s(), LOOK_EVERY_S))
            except DeadlineExceeded:
                missing = [group_id for group_id in group_ids if group_id not in self._evaluation]
                log.error("evaluation: %d groups did not come back, first %s", len(missing), missing[0])
                raise
        results = [self._evaluation[group_id] for group_id in group_ids]
        self._evaluation.clear()
        return [result for result in results if result is not None]

    @property
    def in_hand(self) -> Set[int]:
        """Sequence numbers of the training groups that are claimed and not settled; they are in this process's memory."""
        return {number for number in self._in_hand if not self._ledger.is_settled(number)}

    @property
    def claims_held(self) -> int:
        """Entries that are claimed and not acknowledged."""
        return len(self._owed)

    def take_deaths(self) -> list[str]:
        """Why training groups died since the last call, a text for each."""
        with self.lock:
            deaths = self._deaths
            self._deaths = []
        return deaths

    def settled(self) -> list[Owed]:
        """The claims that the ledger holds as settled now: a checkpoint with that ledger lets `acknowledge` take them."""
        return [
            owed for owed in self._owed if owed.sequence_number is None or self._ledger.is_settled(owed.sequence_number)
        ]

    def acknowledge(self, done: Sequence[Owed]) -> None:
        """Acknowledge what `settled` returned, and nothing else. Called once a durable checkpoint has the ledger of then."""
        for stream in (self._scored, self._dead):
            claims = [owed.claim for owed in done if owed.stream is stream]
            if claims:
                stream.acknowledge(claims)
        gone = {id(owed) for owed in done}
        with self.lock:
            self._owed = [owed for owed in self._owed if id(owed) not in gone]
            self._in_hand = {number for number in self._in_hand if not self._ledger.is_settled(number)}

    def look(self, block_s: float) -> None:
        """Claim once from each stream, waiting up to block_s seconds for the first scored group, and sort what has come."""
        claims = self._scored.claim(CLAIM_AT_ONCE, block_s)
        read = [(claim, _read(claim)) for claim in claims]
        with self.lock:
            for claim, scored in read:
                self._sort(claim, scored)
        if len(claims) < CLAIM_AT_ONCE:
            dead = self._dead.claim(CLAIM_AT_ONCE, 0.0)
            with self.lock:
                for claim in dead:
                    self._bury(claim)

    def give_up(self, number: int, cause: str) -> bool:
        """Hand this training group over to `dead`, where the next look finds it; False while it is not claimed."""
        with self.lock:
            group = next((one for one in self._training if one.group.prompt.sequence_number == number), None)
            if group is None:
                return False
            owed = next(one for one in self._owed if one.stream is self._scored and one.sequence_number == number)
            prompt, claim = group.group.prompt, replace(owed.claim, payload=encode(group))
            self._to_dead(claim, prompt, prompt.group_id, cause, "kills_learner")
            self._owed.remove(owed)
            self._training.remove(group)
            self._in_hand.discard(number)
        return True

    def _sort(self, claim: Claim, scored: ScoredGroup | WireError) -> None:
        if isinstance(scored, WireError):
            self._refuse(claim, str(scored))
            return
        prompt = scored.group.prompt
        self._sampled.trajectories += len(scored.group.trajectories)
        self._sampled.tokens += sum(len(trajectory) for trajectory in scored.group.trajectories)
        if prompt.purpose == "evaluate":
            self._evaluation[prompt.group_id] = scored
            self._owed.append(Owed.of(self._scored, claim, None))
            return
        number = prompt.sequence_number
        self._owed.append(Owed.of(self._scored, claim, number))
        if is_sent_again(prompt) and self._ledger.exhume(number):
            log.info("group %s was dead and comes back scored", prompt.group_id)
        if self._ledger.is_settled(number) or number in self._in_hand:
            GROUPS.labels("repeated").inc()
        else:
            self._in_hand.add(number)
            self._training.append(scored)

    def _refuse(self, claim: Claim, cause: str) -> None:
        """Hand a record that cannot be used over to `dead`, where the next look finds it."""
        prompt = trace(claim.payload)
        self._to_dead(claim, None, prompt.group_id if prompt else claim.entry_id, cause, "unreadable")

    def _to_dead(self, claim: Claim, prompt: Prompt | None, group_id: str, cause: str, label: str) -> None:
        dead = DeadGroup(prompt=prompt, group_id=group_id, stage=self._scored.name, cause=cause, payload=claim.payload)
        if self._scored.hand_over(claim, self._dead, encode(dead)):
            DEAD_GROUPS.labels("learner", label).inc()

    def _bury(self, claim: Claim) -> None:
        self._owed.append(Owed.of(self._dead, claim, None))
        GROUPS.labels("dead").inc()
        prompt: Prompt | Trace | None
        try:
            dead = decode(claim.payload, DeadGroup)
        except WireError as fault:
            prompt, cause = trace(claim.payload), str(fault)
            log.error("group %s is dead: %s", prompt.group_id if prompt else claim.entry_id, fault)
        else:
            prompt, cause = dead.prompt or trace(dead.payload), f"{dead.stage}: {dead.cause}"
            row = "" if dead.prompt is None else f" (dataset row {dead.prompt.row})"
            log.error("group %s%s died at %s: %s", dead.group_id, row, dead.stage, dead.cause)
            self._note_death(dead)
        if prompt is None:
            log.error(
                "entry %s of %s does not say which group it was: its credit is lost", claim.entry_id, self._dead.name
            )
        elif prompt.purpose == "evaluate":
            self._evaluation[prompt.group_id] = None
        elif not self._ledger.is_settled(prompt.sequence_number) and prompt.sequence_number not in self._in_hand:
            self._ledger.bury(prompt.sequence_number, cause)
            self._deaths.append(cause)


def _read(claim: Claim) -> ScoredGroup | WireError:
    """The group of a claim, or why it cannot be read."""
    try:
        scored = decode(claim.payload, ScoredGroup)
        scored.check()
    except WireError as fault:
        return fault
    return scored
