"""The words of a plan: parts of memory, when they are held, and places that hold them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["scoring", "backward", "reduction", "step", "snapshot", "sampling", "start"]
"""What a process does while it holds memory. scoring: forwards without a gradient. reduction: gradients go from rank to rank.
step: Adam's. snapshot: weights are copied for the replicas."""
LEARNER_PHASES: tuple[Phase, ...] = ("scoring", "backward", "reduction", "step", "snapshot")

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Part:
    """Memory for one purpose."""

    name: str
    size_bytes: int
    phases: tuple[Phase, ...] = ()
    """When it is held; empty: always."""
    estimated: bool = False
    """Whether the figure is a guess of what a library takes, and no formula."""

    def held_in(self, phase: Phase) -> bool:
        return not self.phases or phase in self.phases


@dataclass(frozen=True, slots=True)
class Place:
    """One device, host or disk, and what is in it."""

    name: str
    """As in "GPU of learner rank 0"."""
    parts: tuple[Part, ...]
    phases: tuple[Phase, ...]
    capacity_bytes: int | None = None
    """None: not known, so that nothing is said about whether it fits."""
    count: int = 1
    """How many there are of it, all alike."""

    @property
    def fullest(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=self.needed_in)

    @property
    def peak_bytes(self) -> int:
        return self.needed_in(self.fullest)

    @property
    def fits(self) -> bool | None:
        """None: not known."""
        return None if self.capacity_bytes is None else self.peak_bytes <= self.capacity_bytes

    def needed_in(self, phase: Phase) -> int:
        return sum(part.size_bytes for part in self.parts if part.held_in(phase))


def total(parts: Iterable[Part]) -> int:
    return sum(part.size_bytes for part in parts)
