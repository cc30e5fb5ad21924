"""How a score is made: from what a grader says, or without a verdict and with the reason. Imports nothing heavy."""

import math
from collections.abc import Sequence

from services.wire.verdict import Score
from verifier.grader import Judgment, ScoringFault

DETAIL_CHARACTERS = 500


def scored(judgment: Judgment, elapsed_s: float) -> Score:
    """The score for a grader's judgment. Raises ScoringFault when its reward is not finite."""
    reward = float(judgment.correct if judgment.reward is None else judgment.reward)
    if not math.isfinite(reward):
        raise ScoringFault(f"the grader gave the reward {reward}")
    return Score(
        verdict="correct" if judgment.correct else "incorrect",
        reward=reward,
        detail=judgment.detail[:DETAIL_CHARACTERS],
        elapsed_s=elapsed_s,
    )


def no_verdict(detail: str, elapsed_s: float = 0.0) -> Score:
    """An error: nothing is known about the response, for the reason in `detail`."""
    return Score(verdict="error", reward=None, detail=detail[:DETAIL_CHARACTERS], elapsed_s=elapsed_s)


def without_verdict(scores: Sequence[Score]) -> list[int]:
    """Indices of the responses that got no verdict: those whose score has no reward."""
    return [index for index, score in enumerate(scores) if score.reward is None]
