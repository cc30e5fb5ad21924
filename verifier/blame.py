"""Which item of a chunk is at fault when its grader process has ended. Pure: facts come in, a verdict goes out."""

from dataclasses import dataclass
from typing import Literal

from verifier.pipe import Progress


@dataclass(frozen=True, slots=True)
class Deadlines:
    item_s: float
    load_s: float

    def late_at_s(self, progress: Progress) -> float:
        """When the step on which the process is counts as stuck; monotonic seconds."""
        return progress.since_s + (self.load_s if progress.loading else self.item_s)


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a process that was given a chunk."""

    chunk: int
    received: int
    """Items of the chunk whose results had arrived."""
    progress: Progress
    """Read after the end, so that it cannot change any more."""
    killed_s: float | None
    """When the pool killed it; None: it ended by itself."""
    ending: str
    """For example "exit code 7"."""


@dataclass(frozen=True, slots=True)
class Blame:
    index: int
    verdict: Literal["error", "timeout"]
    detail: str
    whole_grader: bool
    """Its grader could not even be imported: every item of that grader is at the same fault."""


def blame(death: Death, deadlines: Deadlines) -> Blame | None:
    """None: nobody can be named, because the process had not begun, was between two items, or had moved on from the item
    for which it was killed."""
    progress = death.progress
    if progress.chunk != death.chunk or progress.index < death.received:
        return None
    if death.killed_s is None:
        step = "while it imported the grader" if progress.loading else "at this response"
        return Blame(progress.index, "error", f"the grader process ended {step} ({death.ending})", progress.loading)
    if deadlines.late_at_s(progress) > death.killed_s:
        return None
    if progress.loading:
        detail = f"importing the grader took longer than {deadlines.load_s:g} s"
        return Blame(progress.index, "error", detail, whole_grader=True)
    return Blame(progress.index, "timeout", f"no verdict within {deadlines.item_s:g} s", whole_grader=False)
