"""Which item of a chunk a grader process ended at, and how. Pure: facts come in, a finding goes out.

A process that was computing until its deadline was kept busy by what it was given; one that hardly had the processor was
starved by the machine, or waited for something. What is unclear is tried again at normal priority; if that is unclear too,
the process counts as busy. A process is given a response and a reference answer: attribution.py has the reference answer
checked alone before it blames the response.
"""

from dataclasses import dataclass
from typing import Literal

from verifier.pool.protocol import ItemProgress

BUSY_SHARE = 0.25
"""Share of the deadline: a process that had the processor for this long was busy. It is hundreds of times what judging a
response usually takes, and what a process gets on a machine where four compete for a core."""
STARVED_SHARE = 0.05
"""Share of the deadline: a process that had the processor for less was starved. Low, because a slow process is made to wait
for the others, and at a tenth of their share it still gets more than this. Between the two it is unclear."""
FROM_OUTSIDE = ("signal SIGKILL", "signal SIGTERM")
"""No process of ours ends like this by itself: the system was out of memory, or an operator did it."""

Kind = Literal["busy", "unclear", "starved", "crashed", "killed", "loading", "memory"]


@dataclass(frozen=True, slots=True)
class Death:
    """The facts about the end of a process that was given a chunk."""

    chunk: int
    received: int
    """Items of the chunk whose results had arrived."""
    progress: ItemProgress
    """Read after the end, so that it can no longer change."""
    killed_s: float | None
    """When the pool killed it, in monotonic seconds; None: it ended by itself, or something else killed it."""
    killed_cpu_s: float
    """CPU time that it had used by then."""
    ending: str
    """For example "exit code 7"."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How a process ended, and at which item."""

    index: int
    """Place of the item in its chunk."""
    kind: Kind
    detail: str


def late_at_s(progress: ItemProgress, deadline_s: float, load_s: float) -> float:
    """When the current step of the process counts as stuck, in monotonic seconds.

    deadline_s: for one item. load_s: for importing a grader.
    """
    return progress.since_s + (load_s if progress.loading else deadline_s)


def blame(death: Death, deadline_s: float, load_s: float) -> Finding | None:
    """The item that the process ended at, and how. None when no item can be named: the process had not begun, was between
    two items, or had moved on from the item for which it was killed."""
    progress = death.progress
    if progress.chunk != death.chunk or progress.index < death.received:
        return None
    if death.killed_s is None:
        step = "while it imported the grader" if progress.loading else "at this response"
        detail = f"the grader process ended {step} ({death.ending})"
        if death.ending in FROM_OUTSIDE:
            return Finding(progress.index, "killed", detail)
        return Finding(progress.index, "loading" if progress.loading else "crashed", detail)
    if late_at_s(progress, deadline_s, load_s) > death.killed_s:
        return None
    if progress.loading:
        return Finding(progress.index, "loading", f"importing the grader took longer than {load_s:g} s")
    cpu_s = death.killed_cpu_s - progress.since_cpu_s
    kind: Kind = "busy" if cpu_s >= BUSY_SHARE * deadline_s else "unclear"
    if cpu_s < STARVED_SHARE * deadline_s:
        kind = "starved"
    return Finding(progress.index, kind, f"no verdict within {deadline_s:g} s, of which {cpu_s:.2f} s computing")
