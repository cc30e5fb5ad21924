"""Writes down which groups a step begins with, so that a group which kills the learner is found and given up.

learner/control/suspicion.py decides; this is the file in the run folder, what the log says, and what the intake asks.
"""

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

from msgspec.structs import replace

from learner.control import suspicion
from learner.control.suspicion import DEATHS_ALONE, DEATHS_OF_A_STEP, EveryStepKills
from learner.metrics import SUSPECTED_GROUPS
from services.errors import InputError
from services.run.step_in_hand import StepInHand, StepInHandFile, read_step_in_hand

log = logging.getLogger("ratchet.learner")

CAUSE = (
    f"it killed the learner: {DEATHS_OF_A_STEP} steps with it among others and {DEATHS_ALONE} with it alone did not come to an "
    "end, and a step without it did; the learner's log and the line of `ratchet up` say how it ended"
)


class StepGuard:
    """On rank 0, in the training loop's thread; `excuse` is for a signal's handler in the same thread."""

    def __init__(self, path: Path | None) -> None:
        """Count the step in which the start before was killed, if there is one. path: the file; None: nothing is written, and
        nobody suspected. Raises EveryStepKills once that is so; the next start then suspects nobody."""
        self._file = None if path is None else StepInHandFile(path)
        self._state = StepInHand()
        self._excused = False
        self._failed = False
        if path is not None:
            self._begin(self._found(path))

    @staticmethod
    def _found(path: Path) -> StepInHand:
        try:
            return read_step_in_hand(path)
        except InputError as fault:
            log.warning("%s; nobody is suspected of having killed the learner before", fault)
            return StepInHand()

    def _begin(self, found: StepInHand) -> None:
        self._state = found
        state = suspicion.died(found)
        hopeless = suspicion.is_hopeless(state)
        self._write(StepInHand() if hopeless else state, durable=True)
        if found.groups and not found.excused:
            log.warning(
                "the learner was killed in step %d, which trained on %s; %d groups are suspected",
                found.step,
                _named(found.groups),
                suspicion.suspects(state),
            )
        if hopeless:
            raise EveryStepKills(
                f"the learner was killed in {state.killed} steps that tried the groups of one step in parts, and came to the end "
                f"of none, the last of them with {_named(found.groups)}: no single group is to blame. Look at the end of its log "
                "and at the memory of the machine and of the GPU; then call the same command again"
            )

    def trial(self, is_settled: Callable[[int], bool]) -> Set[int] | None:
        """The groups that the next step has to train on, and no others; None: any will do. is_settled: whether a group is trained
        on, dropped or dead, so that no step will train on it."""
        if self._state.found_out != StepInHand().found_out:
            self._write(suspicion.without(self._state, is_settled), durable=False)
        return frozenset(self._state.parts[0]) if self._state.parts else None

    def wants(self, group: int) -> bool:
        """Whether the next step may train on this group."""
        parts = self._state.parts
        return group in parts[0] if parts else group not in self._state.convicted

    @property
    def convicted(self) -> Mapping[int, str]:
        """Groups that are to go to `dead`, and why."""
        return dict.fromkeys(self._state.convicted, CAUSE)

    def gave_up(self, group: int) -> None:
        """A convicted group is in `dead`."""
        left = tuple(each for each in self._state.convicted if each != group)
        self._write(replace(self._state, convicted=left), durable=True)

    def begin(self, step: int, groups: Sequence[int]) -> None:
        """A step is about to compute. Returns once that is on the disk."""
        self._write(suspicion.begun(self._state, step, groups), durable=True)

    def end(self) -> None:
        """The step has ended."""
        had = suspicion.suspects(self._state)
        self._write(suspicion.ended(self._state), durable=False)
        if had:
            log.warning(
                "step %d came to its end: %d groups are still suspected, and %d are to go to dead",
                self._state.step,
                suspicion.suspects(self._state),
                len(self._state.convicted),
            )

    def excuse(self) -> None:
        """The learner was asked to stop. A signal's handler may call it in the midst of any other method."""
        self._excused = not self._failed
        self._write(self._state, durable=False)

    def fail(self) -> None:
        """The step has failed, so that it says something of its groups whatever else the learner is told: where another rank has
        died of it, the launcher asks this one to stop."""
        self._failed = True
        self._excused = False
        self._write(self._state, durable=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, state: StepInHand, *, durable: bool) -> None:
        state = replace(state, excused=self._excused)
        if self._file is not None and state != self._state:
            self._file.write(state, durable=durable)
        self._state = state
        if self._excused and not state.excused:  # it was said while this was written
            self._write(state, durable=False)
        SUSPECTED_GROUPS.set(suspicion.suspects(state))


def _named(groups: Sequence[int]) -> str:
    first = ", ".join(map(str, groups[:8]))
    return (
        f"group {first}" if len(groups) == 1 else f"{len(groups)} groups ({first}{', ...' if len(groups) > 8 else ''})"
    )
