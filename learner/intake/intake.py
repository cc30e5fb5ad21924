"""The learner's intake: credits out, scored groups in, until enough of them count for one learner step.

A dropped group gives its credit back as soon as it is sifted, and the credit goes out again at once, so a step never waits for
groups that admission cannot let in. Every group is sifted once, here; only what is kept goes on to the step and to other ranks.

While the loop is busy with a step, a thread gathers for the steps after it (`begin_ahead`): for each in turn, sifted against
the version that it will begin with. Groups come in the same order (order.py) and go into the same steps as without the thread.
What it drops is settled in the ledger only when the loop takes up the step that consumes it, so no checkpoint holds it before:
after a crash it comes again.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from learner.batch.sift import SiftedGroup, sift
from learner.intake.ahead import LOOK_S, Ahead
from learner.intake.collector import LOOK_EVERY_S, Collector, Owed
from learner.intake.drought import Drought
from learner.intake.gathering import Gathered, Gathering
from learner.intake.issuer import PromptIssuer
from learner.intake.ledger import Ledger
from learner.intake.lost import LostGroups
from learner.intake.order import Turns, window_of
from learner.intake.source_watch import SourceWatch
from learner.intake.step_guard import StepGuard
from learner.metrics import GROUPS, LAG_WINDOW_STEPS, OUTSTANDING
from learner.run_state import RunState
from services.clock import Deadline
from services.config import RunConfig
from services.errors import DeadlineExceeded, InputError
from services.metrics import waiting
from services.run.settled import SettledLog
from services.run.waiting import Waiting
from services.streams import Stream
from services.streams.redis_connection import ServerFull
from services.wire.score import ScoredGroup

log = logging.getLogger("ratchet.learner")

UNCONFIRMED_LOOK_EVERY_S = 0.05
"""How often to look for credits while replicas take the newest weights: that version's credits wait for their confirmation."""


class SourcesEnded(InputError):
    """No source has a prompt left, and the run has not reached its last step."""


class Replicas(Protocol):
    """What the intake has to know of the replicas; the weight publisher knows it."""

    @property
    def confirmed_version(self) -> int | None:
        """The policy version that every live replica samples under; None while they hold different ones."""

    def should_stop(self) -> bool:
        """Whether the run was asked to stop. Raises what keeps weights from the replicas, if anything does."""


class Intake:
    """Claims groups for the training loop, settles them, and issues prompts as credits come free. Lives on rank 0."""

    def __init__(
        self,
        config: RunConfig,
        *,
        state: RunState,
        ledger: Ledger,
        issuer: PromptIssuer,
        collector: Collector,
        replicas: Replicas,
        streams: Sequence[Stream],
        tell: Callable[[Waiting], None] = lambda _: None,
        record: SettledLog | None = None,
        guard: StepGuard | None = None,
    ) -> None:
        """state: shared with the training loop; the intake alone writes `state.issued`. streams: all that training groups go
        through, in order, to find those that are lost. tell: called while it gathers, about once a second. record: where it
        writes what became of each group. guard: where it writes which groups a step begins with."""
        self._settings = config.learner
        # What is tried alone has grown old by that.
        self._trial_settings = config.learner.model_copy(update={"stale_tokens": "train"})
        self._groups_s = config.deadlines.groups_s
        self._state = state
        self._ledger = ledger
        self._issuer = issuer
        self._collector = collector
        self._replicas = replicas
        self._tell = tell
        self._record = record
        self._lost = LostGroups(state, ledger, issuer, collector, streams, record)
        self._guard = guard or StepGuard(None)
        self._drought = Drought(config.learner.max_unusable_groups, has_counted=state.policy_version > 0)
        self._watch = SourceWatch(config.learner.max_unusable_groups)
        self._turns = Turns(
            lambda: collector.ready_group(self._guard.wants),
            self._sifted,
            # What a trial of suspects has put aside has its turn when that is over.
            lambda number: collector.is_settled(number) or not self._guard.wants(number),
            window_of(config.learner),
        )
        self._ahead = Ahead(self.look_ahead)
        self._current = Gathering(state.policy_version)  # for the step that the loop takes next, or is taking
        # For the steps after it, by policy version; all but the last have enough groups. Guarded by the lock.
        self._gatherings: deque[Gathering] = deque()
        self.lock = collector.lock
        """Held while the ledger changes, what is issued, or what is in hand. The loop holds it where several of them, or they and
        the policy version, have to fit together."""

    def restore(self) -> None:
        """Issue again what no checkpoint holds and is on no stream."""
        self._lost.restore()

    def issue(self) -> float:
        """Issue as many prompts as admission allows now, after those that the stream server has lost. Returns how long to wait
        before looking again, in seconds."""
        with self.lock:
            issued = self._issuer.issued_count()
            if issued < self._state.issued:
                try:
                    self._lost.issue_again(
                        "Redis has lost the count of this run's groups: it was emptied, or is another server"
                    )
                except ServerFull:
                    return LOOK_EVERY_S
                issued = self._state.issued
            confirmed, ahead = self._replicas.confirmed_version, self._state.ess_control.steps_ahead
            if confirmed is not None:
                version = self._state.policy_version
                self._state.issued = self._issuer.issue(issued, self._outstanding, version, confirmed, ahead)
                LAG_WINDOW_STEPS.set(ahead)
            OUTSTANDING.set(self._outstanding(self._state.issued))
        return LOOK_EVERY_S if confirmed == self._state.policy_version else UNCONFIRMED_LOOK_EVERY_S

    def _outstanding(self, issued: int) -> int:
        """How many of the groups issued so far hold a credit: neither settled nor dropped ahead."""
        return self._ledger.outstanding(issued) - sum(gathering.dropped for gathering in self._gatherings)

    def gather(self, meanwhile: Callable[[], None] = lambda: None) -> Gathered | None:
        """Collect groups until groups_per_step of them reach the loss. Returns None when the run was asked to stop.

        meanwhile: called before each look at the stream.

        Raises DeadlineExceeded, NoUsableGroups when too many come to nothing, SourcesEnded when no more will come, or the
        publisher's fault: weights that do not arrive are the reason that no groups come.

        Waits for: scored groups, one after the other: what replicas sample and verifiers score.
        Until: deadlines.groups_s for all groups of the step together.
        Ended by: arrival of enough groups that count, or of too many that do not, the end of every source, the stop signal, the
        deadline, or the publisher's fault.
        Metric: ratchet_waiting{room="learner", awaiting="scored groups"}; ratchet_learner_outstanding_groups says whether any
        are on their way.
        """
        deadline = Deadline.after(self._groups_s, "scored groups")
        gathering = self._take_up()
        self._give_up_convicted()
        between_looks = partial(self._between_looks, meanwhile)
        while self._lacks(gathering):
            try:
                taken = self._collector.training_group(
                    partial(self._turns.next, gathering.policy_version),
                    deadline,
                    self._replicas.should_stop,
                    between_looks,
                )
            except DeadlineExceeded as late:
                facts = self._waiting().said()
                raise DeadlineExceeded(f"scored groups ({facts})", late_s=late.late_s) from late
            if taken is None:
                return None
            group, one = taken
            with self.lock:
                gathering.add(group, one)
                self._count(group, one)
            if one.drop is not None:
                self.issue()
        return gathering.gathered()

    def _lacks(self, gathering: Gathering) -> bool:
        """Whether the step has to wait for more groups: until there are enough that count, or all of those to be tried."""
        trial = self._trial()
        if trial is None:
            return not self._is_enough(gathering)
        return bool(trial - {one.prompt.sequence_number for one in gathering.sifted if one.drop is None})

    def _sifted(self, group: ScoredGroup, policy_version: int) -> SiftedGroup:
        """Called for every group, whatever its turn."""
        return sift(group, policy_version, self._settings if self._trial() is None else self._trial_settings)

    def _trial(self) -> Set[int] | None:
        """The groups that have to be tried alone, because they may have killed the learner."""
        return self._guard.trial(self._ledger.is_settled)

    def _give_up_convicted(self) -> None:
        """Send the groups that kill the learner to `dead`, as far as they have come."""
        for number, cause in self._guard.convicted.items():
            if self._collector.give_up(number, cause):
                self._guard.gave_up(number)

    def _take_up(self) -> Gathering:
        """What there is for the step that the loop takes next. What the thread dropped of it is settled now."""
        with self.lock:
            is_ready = bool(self._gatherings) and self._is_enough(self._gatherings[0])
        if not is_ready:
            with waiting("learner", "scored groups"):
                self._ahead.pause()
        self._ahead.raise_fault()
        with self.lock:
            version = self._state.policy_version
            self._current = self._gatherings.popleft() if self._gatherings else Gathering(version)
            for group, one in zip(self._current.groups, self._current.sifted, strict=True):
                self._count(group, one)
        return self._current

    def _count(self, group: ScoredGroup, one: SiftedGroup) -> None:
        """Settle a group that the step consumes, if it is dropped. Called under the lock, in order of arrival."""
        self._watch.count(one.prompt.source, one.drop)
        if one.drop is None:
            self._drought.count_usable()
            return
        self._ledger.drop(one.prompt.sequence_number, one.drop)
        GROUPS.labels(one.drop).inc()
        self._issuer.observe(group, self._state.policy_version)
        self._drought.count_dropped(group, one)

    def _is_enough(self, gathering: Gathering) -> bool:
        return gathering.usable >= self._settings.groups_per_step

    def begin_ahead(self) -> None:
        """From now on a thread gathers for the steps after the one that the loop has gathered for, and issues what admission
        allows, until `gather` lacks groups, `paused` or `end_ahead`. With learner.max_lag = 0 nothing can be gathered ahead, and
        after the last step nothing is needed, nor beside a step whose groups are tried alone."""
        is_free = self._settings.max_lag > 0 and self._trial() is None
        if is_free and self._current.policy_version + 1 < self._settings.steps:
            self._ahead.begin()
        else:
            self._ahead.pause()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is gathered ahead within: another may look at the streams."""
        was_ahead = self._ahead.pause()
        try:
            yield
        finally:
            if was_ahead:
                self._ahead.begin()

    def end_ahead(self) -> None:
        """Gather nothing ahead any more, and claim nothing. What was gathered ahead comes again to the next start."""
        self._ahead.close()

    def look_ahead(self) -> bool:
        """One look for the steps after the one that the loop has gathered for, and what follows from it; False once the run was
        asked to stop. The thread does it again and again."""
        if self._replicas.should_stop():
            return False
        while (gathering := self._next_gathering()) is not None and (
            taken := self._turns.next(gathering.policy_version)
        ) is not None:
            with self.lock:
                gathering.add(*taken)
        self.issue()
        self._collector.look(LOOK_S)
        return True

    def _next_gathering(self) -> Gathering | None:
        """Where the next group goes; None: no step is left that needs it."""
        with self.lock:
            if self._gatherings and not self._is_enough(self._gatherings[-1]):
                return self._gatherings[-1]
            last = self._gatherings[-1] if self._gatherings else self._current
            if last.policy_version + 1 >= self._settings.steps:
                return None
            self._gatherings.append(Gathering(last.policy_version + 1))
            return self._gatherings[-1]

    def _between_looks(self, meanwhile: Callable[[], None]) -> float:
        """Issue what admission allows and say what is waited for. Returns how long to wait before looking again, in seconds."""
        meanwhile()
        self._give_up_convicted()
        self._drought.count_dead(self._collector.take_deaths())
        look_s = self.issue()
        self._lost.look()
        usable = self._current.usable
        if self._issuer.has_ended and self._outstanding(self._state.issued) <= usable:
            raise SourcesEnded(
                f"every source of prompts.sources has ended, and step {self._state.policy_version + 1} has {usable} of "
                f"{self._settings.groups_per_step} groups; raise an epochs of prompts.sources, or lower learner.steps to "
                f"{self._state.policy_version}"
            )
        self._tell(self._waiting())
        return look_s

    def _waiting(self) -> Waiting:
        return Waiting(
            step=self._state.policy_version + 1,
            usable=self._current.usable,
            needed=len(self._trial() or ()) or self._settings.groups_per_step,
            unusable=self._drought.said(),
            outstanding=self._outstanding(self._state.issued),
            confirmed=self._replicas.confirmed_version is not None,
            held=self._turns.waiting,
            held_by=self._turns.oldest if self._turns.waiting else None,
        )

    def begin_step(self, gathered: Gathered) -> None:
        """A step begins to compute; what it trains on is on the disk by then."""
        numbers = [group.prompt.sequence_number for group in gathered.kept]
        self._guard.begin(self._state.policy_version + 1, numbers)

    def fail_step(self) -> None:
        """The step that has begun did not come to its end, and the learner ends with it."""
        self._guard.fail()

    def settle(self, gathered: Gathered, *, trained: bool) -> None:
        """Settle the kept groups after the step that consumed them, and write down what was settled since the step before.
        trained: whether that step changed the weights. Called before the state counts the step, under the lock with it: credits
        are free only at the version that the step makes."""
        scored = {group.group.prompt.sequence_number: group for group in gathered.groups}
        for group in gathered.kept:
            number = group.prompt.sequence_number
            if trained:
                self._ledger.train(number)
            else:
                self._ledger.drop(number, "skipped_step")
            GROUPS.labels("trained" if trained else "skipped_step").inc()
            self._issuer.observe(scored[number], self._state.policy_version)
        if self._record is not None:
            step = self._state.policy_version + 1
            self._record.step(step, self._ledger.take_events(), issued=self._state.issued)
        self._guard.end()

    def to_dict(self) -> dict[str, object]:
        """The ledger as JSON values, for the checkpoint that is about to be written."""
        saved = self._ledger.to_dict()
        if self._record is None:
            return saved
        events = self._ledger.take_events()
        return saved | {"mark": self._record.checkpoint(self._state.policy_version, events, issued=self._state.issued)}

    def plan_to_dict(self) -> dict[str, object]:
        """Which prompts are out, and the state of what chooses the next, as JSON values for the checkpoint."""
        # Those that were chosen and found no room on the server, too: their problems have had their turn.
        return self._issuer.to_dict(self._ledger.unsettled(max(self._state.issued, self._issuer.chosen)))

    @property
    def shares(self) -> Mapping[str, float]:
        """Source -> the share of the prompts that it gets now."""
        with self.lock:
            return self._issuer.shares

    def settled_claims(self) -> list[Owed]:
        """The claims of the groups that the ledger holds as settled now."""
        return self._collector.settled()

    def acknowledge(self, settled: Sequence[Owed]) -> None:
        """Acknowledge on the streams what a durable checkpoint holds as settled: what `settled_claims` was when it began."""
        self._collector.acknowledge(settled)

    def counts(self) -> dict[str, object]:
        """What became of the groups issued so far: the `groups` entry of the summary."""
        with self.lock:
            return self._ledger.counts(self._state.issued)
