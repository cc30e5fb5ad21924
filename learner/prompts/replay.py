"""Sampler `replay`: prompts are reused, not responses, where the model solved them about half the time.

A group teaches most where its rewards vary most, which is at a pass rate of one half. A share of the prompts is therefore spent
on problems whose newest group was near it, each after a cool-down, and a bounded number of times until the problem's turn
in the epoch; the rest goes through the epoch as `uniform` does. In published curves this learns faster early on and ends where
uniform does (prompt replay; our reading).
"""

from typing import Any

import numpy as np

from learner.prompts.measured import Measured
from learner.prompts.sampler import Choice, Mask, Turn
from learner.prompts.uniform import Uniform
from services.config.samplers import ReplaySampler

STREAM = 1
"""Keeps these draws apart from others of the same seed."""


class Replay:
    def __init__(self, settings: ReplaySampler, seed: int, uniform: Uniform) -> None:
        """uniform: gives the problems that are not replayed."""
        self._settings = settings
        self._seed = seed
        self._uniform = uniform

    def choose(self, turn: Turn, measured: Measured, awake: Mask) -> Choice:
        """The replayable problem nearest to one half, the longest not issued among equals, with the probability `share`; else
        the next of the epoch."""
        draw = np.random.default_rng([self._seed, STREAM, turn.sequence_number]).random()
        if draw < self._settings.share:
            candidates = np.flatnonzero(self.may_be_replayed(turn.step, measured) & awake)
            if len(candidates):
                distance = np.abs(measured.last_rate[candidates] - 0.5)
                nearest = np.lexsort((measured.issued_draw[candidates], distance))[0]
                return Choice(int(candidates[nearest]), in_turn=False)
        return self._uniform.choose(turn, measured, awake)

    def may_be_replayed(self, step: int, measured: Measured) -> Mask:
        """bool [R]: the pass rate is within the bounds, the cool-down is over and the cap is not reached."""
        settings = self._settings
        near = (measured.last_rate >= settings.low) & (measured.last_rate <= settings.high)
        cool = (measured.issued_step >= 0) & (step - measured.issued_step >= settings.cooldown_steps)
        mask: Mask = near & cool & (measured.reuses < settings.max_reuses)
        return mask

    def note(self, choice: Choice, measured: Measured) -> None:
        measured.reuses[choice.problem] = 0 if choice.in_turn else measured.reuses[choice.problem] + 1
        self._uniform.note(choice, measured)

    def to_dict(self) -> dict[str, Any]:
        return self._uniform.to_dict()

    def restore(self, saved: dict[str, Any]) -> None:
        self._uniform.restore(saved)
