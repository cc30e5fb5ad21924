"""Sampler `curriculum`: problems whose measured pass rate is near a target are drawn more often, and the target falls.

A problem that was never sampled is drawn as often as one at the target: its rate is to be found out. One that was issued
within the last quarter of an epoch rests, and one that was passed over for five epochs comes next, whatever its rate: no
problem is left out for good.
"""

from typing import Any

import numpy as np

from learner.prompts.measured import Measured
from learner.prompts.sampler import Choice, Mask, Turn
from services.config.samplers import CurriculumSampler

STREAM = 2
"""Keeps these draws apart from others of the same seed."""
REST_EPOCHS = 0.25
LONGEST_WAIT_EPOCHS = 5


class Curriculum:
    def __init__(self, settings: CurriculumSampler, seed: int) -> None:
        self._settings = settings
        self._seed = seed

    def choose(self, turn: Turn, measured: Measured, awake: Mask) -> Choice:
        waited = measured.draws - measured.issued_draw  # of one that was never issued: all draws so far, and one
        patient = np.where(awake, waited, -1)
        longest = int(patient.argmax())
        if patient[longest] > LONGEST_WAIT_EPOCHS * len(measured):
            return Choice(longest)
        rests = (measured.issued_draw >= 0) & (waited <= REST_EPOCHS * len(measured))
        weight = np.where(awake & ~rests, self.weights(turn.step, measured), 0.0)
        sums = np.cumsum(weight)
        if sums[-1] <= 0.0:
            return Choice(longest)
        draw = np.random.default_rng([self._seed, STREAM, turn.sequence_number]).random()
        return Choice(int(np.searchsorted(sums, draw * sums[-1], side="right")))

    def target(self, step: int) -> float:
        """The pass rate that is aimed at after `step` learner steps."""
        settings = self._settings
        return settings.start + (settings.end - settings.start) * min(1.0, step / settings.over_steps)

    def weights(self, step: int, measured: Measured) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """How often each problem is drawn, relative to one at the target: f + (1 - f) exp(-(p - target)^2 / (2 width^2)), where p
        is its pass rate and f the floor; 1 where p is not known. float64 [R]."""
        settings = self._settings
        distance = np.where(np.isnan(measured.rate), 0.0, measured.rate - self.target(step)) / settings.width
        return settings.floor + (1.0 - settings.floor) * np.exp(-0.5 * distance**2)

    def note(self, choice: Choice, measured: Measured) -> None:
        """Nothing: what was measured says all."""

    def to_dict(self) -> dict[str, Any]:
        return {}

    def restore(self, saved: dict[str, Any]) -> None:
        """Nothing to go on from."""
