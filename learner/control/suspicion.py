"""Which group kills the learner, found by bisection over its starts. Facts go in, what to do next comes out; it owns no file.

A group that was twice in a step which killed the learner is suspected. Those of one step are tried in parts, a step for each and
nothing else in it:

    a part comes to its end    its groups are trained on, and no longer suspected
    a part kills the learner   it is halved, and both halves are tried after the other parts
    a single group kills it    it is tried once more, and then condemned

So one such group among n costs at most 2 + ceil(log2 n) + 2 starts, whichever it is; nobody else is held up for longer than that,
and the groups of a step that was only too large as a whole are all trained on. A condemned group is convicted once some step has
come to its end since the suspicion began. Where none has, after DEATHS_WITHOUT_END of them, no group is to blame.

A learner that is killed from outside makes suspects only where it is killed twice with the same groups, and they are cleared by
the next steps that come to their end.
"""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from services.errors import RatchetError
from services.run.step_in_hand import StepInHand

DEATHS_OF_A_STEP = 2
"""A group that was in as many steps that killed the learner is suspected: once may be anything."""
DEATHS_ALONE = 2
"""A group that killed the learner alone this often is condemned."""
DEATHS_WITHOUT_END = 6
"""When both halves and all four quarters of a step kill the learner, it is not for one of its groups."""


class EveryStepKills(RatchetError):
    """The learner dies in its steps, whichever groups they train on."""

    retry = "never"


def begun(state: StepInHand, step: int, groups: Sequence[int]) -> StepInHand:
    """A step begins. step: the policy version that it makes. groups: what it trains on, at least one."""
    return replace(state, step=step, groups=tuple(groups))


def ended(state: StepInHand) -> StepInHand:
    """The step came to its end: none of its groups kills the learner."""
    deaths = {group: count for group, count in state.deaths.items() if group not in state.groups}
    tried = replace(state, parts=state.parts[1:], survived=True) if state.parts else state
    return _decided(replace(tried, groups=(), deaths=deaths))


def died(state: StepInHand) -> StepInHand:
    """What a start makes of what it finds: if a step is in hand, it has killed the learner, unless that was asked to stop."""
    if not state.groups or state.excused:
        return replace(state, groups=(), excused=False)
    after = _after_trial(state) if state.parts else _after_step(state)
    return replace(after, groups=())


def without(state: StepInHand, is_settled: Callable[[int], bool]) -> StepInHand:
    """The same without groups that are settled by now: no step will train on them."""
    parts = (tuple(group for group in part if not is_settled(group)) for part in state.parts)
    return _decided(
        replace(
            state,
            deaths={group: count for group, count in state.deaths.items() if not is_settled(group)},
            parts=tuple(part for part in parts if part),
            condemned=tuple(group for group in state.condemned if not is_settled(group)),
            convicted=tuple(group for group in state.convicted if not is_settled(group)),
        )
    )


def is_hopeless(state: StepInHand) -> bool:
    """Whether the learner dies whichever groups a step trains on, as far as has been tried."""
    return not state.survived and (state.killed >= DEATHS_WITHOUT_END or (len(state.condemned) > 1 and not state.parts))


def suspects(state: StepInHand) -> int:
    """How many groups are suspected."""
    return sum(map(len, state.parts)) + len(state.condemned)


def _after_step(state: StepInHand) -> StepInHand:
    """An ordinary step has killed the learner."""
    deaths = state.deaths | {group: state.deaths.get(group, 0) + 1 for group in state.groups}
    suspected = tuple(group for group in state.groups if deaths[group] >= DEATHS_OF_A_STEP)
    if not suspected:
        return replace(state, deaths=deaths)
    return replace(state, deaths=deaths, parts=_halves(suspected), alone={}, killed=0, survived=False)


def _after_trial(state: StepInHand) -> StepInHand:
    """A step with the groups of the first part has killed the learner, or with those of them that were left."""
    rest = state.parts[1:]
    killed = replace(state, killed=state.killed + (not state.survived))
    if len(state.groups) > 1:
        return replace(killed, parts=rest + _halves(state.groups))
    (group,) = state.groups
    alone = state.alone | {group: state.alone.get(group, 0) + 1}
    if alone[group] < DEATHS_ALONE:
        return replace(killed, alone=alone, parts=(*rest, (group,)))
    return _decided(replace(killed, alone=alone, parts=rest, condemned=(*state.condemned, group)))


def _decided(state: StepInHand) -> StepInHand:
    """Convict who is condemned, if the learner has survived a step, or if there is nobody else to try; and end the suspicion
    where nobody is suspected any more."""
    if state.survived or (len(state.condemned) == 1 and not state.parts):
        deaths = {group: count for group, count in state.deaths.items() if group not in state.condemned}
        state = replace(state, deaths=deaths, convicted=(*state.convicted, *state.condemned), condemned=())
    if not state.parts and not state.condemned:
        state = replace(state, alone={}, killed=0, survived=False)
    return state


def _halves(groups: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    middle = (len(groups) + 1) // 2
    return (groups[:middle], groups[middle:]) if len(groups) > 1 else (groups,)
