"""Which side limits a run, the learner or its replicas, and what would balance them: arithmetic on how idle each is.

A side is idle while it has nothing to do: the learner while it takes no step and writes nothing, an engine while it has no
sequence, a verifier while it grades nothing. The services count that themselves (`ratchet_idle_seconds_total` and
`ratchet_busy_seconds_total`). The time of evaluations is left out: the learner waits for them by design, and engines work.

An engine with one sequence counts as busy as a full one, and replicas on the same cores do not add up. So what is said of other
numbers of replicas holds for replicas with a device of their own.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.command.rooms import LEARNER, ROLLOUT, VERIFIER
from services.command.scrape import Scrape, grown, idle_share
from services.numbers import count

BALANCED = 0.1
"""A side that is idle for a smaller share of its time than this is as good as full."""
RECENT_S = 300.0
"""Looks that are older say nothing of now."""

Looks = Mapping[str, Scrape | None]
"""What each service said, by the name under which it has announced itself; None: it did not answer."""


@dataclass(frozen=True, slots=True)
class Idle:
    """How idle the sides of a run were over the same time, as shares of it, 0..1."""

    learner: float
    engines: float
    """The mean of the replicas."""
    replicas: int
    """Those that answered."""
    graders: float | None = None
    """The mean of the verifiers; None: none answers."""
    awaited: str = ""
    """What the learner waited for longest, by its metric; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """The settings that bound how many groups may be outstanding."""

    groups_per_step: int
    max_lag: int
    """Learner steps."""


def idle_between(before: Looks, now: Looks) -> Idle | None:
    """What two looks say of the time between them. None while a side did not answer, or did nothing that counts.

    before: nothing of a service stands for the time since it could work.
    """
    learner = next((one for name, one in now.items() if name == LEARNER and one is not None), None)
    if learner is None:
        return None
    earlier = _of_the_same_start(before.get(LEARNER), learner)
    evaluating_s = grown("ratchet_wait_seconds_total", earlier, learner, room=LEARNER, awaiting="evaluation")
    own = idle_share(LEARNER, earlier, learner, less_idle_s=evaluating_s)
    engines = _shares(before, now, ROLLOUT, less_s=evaluating_s)
    graders = _shares(before, now, VERIFIER)
    if own is None or not engines:
        return None
    return Idle(
        learner=own,
        engines=sum(engines) / len(engines),
        replicas=len(engines),
        graders=sum(graders) / len(graders) if graders else None,
        awaited=_longest_wait(earlier, learner),
    )


def _of_the_same_start(before: Scrape | None, now: Scrape) -> Scrape | None:
    """The earlier look, unless the process was started again since: its counters began again."""
    started = "process_start_time_seconds"
    return before if before is not None and before.value(started) == now.value(started) else None


def _shares(before: Looks, now: Looks, room: str, *, less_s: float = 0.0) -> list[float]:
    """The idle share of each service of a room that answers. less_s: time of evaluations, in which engines were busy."""
    found = []
    for name, look in now.items():
        if look is not None and name.startswith(room):
            earlier = _of_the_same_start(before.get(name), look)
            found.append(idle_share(room, earlier, look, less_busy_s=less_s))
    return [share for share in found if share is not None]


def _longest_wait(before: Scrape | None, now: Scrape) -> str:
    waits = {
        awaited: grown("ratchet_wait_seconds_total", before, now, room=LEARNER, awaiting=awaited)
        for awaited in ("scored groups", "weight confirmations", "checkpoint", "other ranks")
    }
    longest = max(waits, key=lambda awaited: waits[awaited])
    return longest if waits[longest] > 0 else ""


def balance(idle: Idle, admitted: Admitted) -> str:
    """Which side limits the run and what would balance it, in one or two sentences with their arithmetic."""
    learner, engines = idle.learner, idle.engines
    works, sample = 1 - learner, 1 - engines
    if max(learner, engines) < BALANCED:
        return f"balanced: the learner is idle {learner:.2f} of the time, the engines {engines:.2f}"
    if engines < BALANCED:
        if works <= 0:
            return "sampling limits: the learner had nothing to do in all of this time"
        return (
            f"sampling limits: the learner is idle {learner:.2f} of the time, the engines {engines:.2f}; "
            f"{idle.replicas} x {sample:.2f} / {works:.2f} = {idle.replicas * sample / works:.1f} replicas like "
            f"{'this one' if idle.replicas == 1 else 'these'} would keep it busy"
        )
    if learner < BALANCED:
        enough = idle.replicas * sample / works
        replicas = (
            f"{idle.replicas} x {sample:.2f} / {works:.2f} = {enough:.1f} replicas would do, or " if enough else ""
        )
        return (
            f"the learner limits: it is idle {learner:.2f} of the time, the engines {engines:.2f}; {replicas}"
            + (f"a learner {works / sample:.1f} times as fast" if sample > 0 else "a faster learner")
            + " would use them all (learner.ranks)"
        )
    return _neither(idle, admitted)


def _neither(idle: Idle, admitted: Admitted) -> str:
    """What is said where both sides are idle: something between them limits."""
    both = f"the learner is idle {idle.learner:.2f} of the time, the engines {idle.engines:.2f}"
    if idle.graders is not None and idle.graders < BALANCED:
        return f"grading limits: {both}, the verifier {idle.graders:.2f}; more verifiers, or more verifier.processes"
    if admitted.max_lag == 0:
        return f"learner and engines take turns: {both}; learner.max_lag = 0 asks for that, and with 1 they work at the same time"
    if idle.awaited == "weight confirmations":
        return f"weights limit: {both}, and the learner waits for replicas to confirm versions"
    if idle.awaited == "checkpoint":
        return f"checkpoints limit: {both}, and the learner waits for the disk"
    least = min(idle.learner, idle.engines)
    may = (admitted.max_lag + 1) * admitted.groups_per_step
    if least >= 1:
        return f"nothing happens: {both}"
    wanted = math.ceil(may / (1 - least))
    groups, lag = math.ceil(wanted / (admitted.max_lag + 1)), math.ceil(wanted / admitted.groups_per_step) - 1
    return (
        f"credits limit: {both}, and ({admitted.max_lag} + 1) x {admitted.groups_per_step} = {count(may)} groups may be "
        f"outstanding; if they come round as fast as now, {count(may)} / {1 - least:.2f} = {count(wanted)} fill the time of the "
        f"side that is less idle: learner.groups_per_step = {groups}, or learner.max_lag = {lag}"
    )


class IdleWatch:
    """Looks at the same run again and again; what is said is of the last five minutes (RECENT_S)."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Looks]] = deque()

    def take(self, look: Looks) -> None:
        """One more look."""
        at_s = max((one.at_s for one in look.values() if one is not None), default=None)
        if at_s is None:
            return
        self._looks.append((at_s, look))
        while len(self._looks) > 2 and at_s - self._looks[1][0] >= RECENT_S:
            self._looks.popleft()

    def said(self, admitted: Admitted, steps: Sequence[Mapping[str, object]]) -> str | None:
        """The balance in words; None while it is not known.

        steps: the newest rows of steps.jsonl. Looks over less than three steps say what the run happened to be at; then all
        of the time since the services could work is taken instead.
        """
        if not self._looks:
            return None
        (began_s, first), (ended_s, last) = self._looks[0], self._looks[-1]
        seconds = ended_s - began_s
        is_long = seconds > 0 and seconds >= 3 * _step_s(steps)
        idle = idle_between(first if is_long else {}, last)
        if idle is None:
            return None
        return f"{balance(idle, admitted)} ({f'of the last {count(seconds)} s' if is_long else 'since their start'})"


def _step_s(steps: Sequence[Mapping[str, object]]) -> float:
    """Mean seconds from step to step; 0 before the first."""
    lengths = [_number(row.get("seconds")) + _number(row.get("waited_s")) for row in steps]
    return sum(lengths) / len(lengths) if lengths else 0.0


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
