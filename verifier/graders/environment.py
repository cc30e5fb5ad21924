"""Grader `environment`: the reward that the environment gave for a conversation is the reward.

In place of the response it is given that number, the sum over all turns. Failure modes: a conversation that was cut before the
environment gave anything is incorrect, with reward 0; what the environment itself failed at never comes here.
"""

import math
from typing import Any, ClassVar

from verifier.grader import Grader, Judgment, ScoringFault


class EnvironmentReward(Grader, frozen=True):
    version: ClassVar[str] = "1"

    correct_from: float = 1.0
    """The least reward of a conversation that counts as correct in pass rates."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.correct_from):
            raise ScoringFault(f"option correct_from = {self.correct_from} is not a finite number")

    def check(self, reference: Any) -> None:
        """Any reference will do: the environment has judged already."""

    def score(self, response: str, reference: Any) -> Judgment:
        if not response:
            return Judgment(False, "cut before the environment gave a reward")
        try:
            reward = float(response)
        except ValueError:
            reward = math.nan
        if not math.isfinite(reward):
            raise ScoringFault(
                f"{response[:60]!r} is not a reward of an environment; its grader needs the section [environment]"
            )
        return Judgment(reward >= self.correct_from, f"the environment gave {reward:g}", reward)
