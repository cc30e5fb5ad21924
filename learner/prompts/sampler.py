"""The seam of the samplers: which problem of one source is issued next."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from learner.prompts.measured import Measured

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Turn:
    """When a choice is made."""

    sequence_number: int
    """Number of the prompt to issue. Random draws are a function of the run's seed and this."""
    step: int
    """The policy version: the number of learner steps taken."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a sampler says comes next."""

    problem: int
    """Index of the problem in its source."""
    in_turn: bool = True
    """Whether this is the problem's turn in the epoch; False for one that comes beside its turn, such as a replay."""


class Sampler(Protocol):
    """Chooses within one source. `choose` changes nothing; what was issued is told by `note`, so that a resumed run can be told
    what its streams already hold. What was measured of the problems is kept by the caller."""

    def choose(self, turn: Turn, measured: Measured, awake: Mask) -> Choice:
        """The next problem. awake: bool [R], which problems may be issued now; at least one of them."""

    def note(self, choice: Choice, measured: Measured) -> None:
        """This was issued. Called before `Measured.note`."""

    def to_dict(self) -> dict[str, Any]:
        """What `restore` needs besides the settings and what was measured, as JSON values."""

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `to_dict` gave."""
