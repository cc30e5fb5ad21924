import math

import pytest

from verifier.grader import Judgment, ScoringFault
from verifier.scores import DETAIL_CHARACTERS, no_verdict, scored, without_verdict


def test_a_judgment_becomes_a_score_with_its_reward_or_1_or_0() -> None:
    right, wrong, partial = (scored(one, 0.5) for one in (Judgment(True), Judgment(False), Judgment(False, "x", 0.3)))
    assert [(one.verdict, one.reward) for one in (right, wrong, partial)] == [
        ("correct", 1.0),
        ("incorrect", 0.0),
        ("incorrect", 0.3),
    ]
    assert (partial.detail, partial.elapsed_s) == ("x", 0.5)


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_a_fault(reward: float) -> None:
    with pytest.raises(ScoringFault, match=f"gave the reward {reward}"):
        scored(Judgment(True, "", reward), 0.0)


def test_details_are_short() -> None:
    long = "x" * 2 * DETAIL_CHARACTERS
    assert len(no_verdict(long).detail) == len(scored(Judgment(True, long), 0.0).detail) == DETAIL_CHARACTERS


def test_responses_without_a_verdict_are_those_without_a_reward() -> None:
    assert without_verdict([no_verdict("why"), scored(Judgment(False), 0.0), no_verdict("why")]) == [0, 2]
