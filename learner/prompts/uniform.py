"""Sampler `uniform`: every problem once an epoch, in the order of services/datasets/dataset.py."""

from typing import Any

from learner.prompts.measured import Measured
from learner.prompts.sampler import Choice, Mask, Turn
from services.datasets.dataset import PromptCursor


class Uniform:
    """Goes through epoch after epoch and passes over problems that are asleep."""

    def __init__(self, seed: int, problems: int, *, shuffle: bool) -> None:
        self._cursor = PromptCursor(seed, problems, shuffle=shuffle)
        self._problems = problems
        self._place = 0  # epochs times problems, and the place in the epoch

    def choose(self, turn: Turn, measured: Measured, awake: Mask) -> Choice:
        """The next in the epoch that is awake. Raises ValueError if none is."""
        for place in range(self._place, self._place + 2 * self._problems):  # in which every problem has a turn
            if awake[problem := self.at(place)]:
                return Choice(problem)
        raise ValueError("no problem is awake")

    def note(self, choice: Choice, measured: Measured) -> None:
        """Go past the problem's turn, if this was it."""
        if not choice.in_turn:
            return
        while self.at(self._place) != choice.problem:
            self._place += 1
        self._place += 1

    def at(self, place: int) -> int:
        """The problem whose turn it is at this place, counted from the first prompt of the source."""
        return self._cursor.at(place)[1]

    def to_dict(self) -> dict[str, Any]:
        return {"place": self._place}

    def restore(self, saved: dict[str, Any]) -> None:
        self._place = int(saved.get("place", 0))
