import pytest

from learner.objective.dapo import OBJECTIVE
from services.config.objectives.dapo import DapoObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_what_became_more_likely_may_go_further_up_than_down() -> None:
    tokens = tokens_at([1.25, 1.3, 0.85, 0.75], [1.0, 1.0, -1.0, -1.0])
    got = gradient(OBJECTIVE.surrogate(tokens, DapoObjective()), tokens)
    assert got.tolist() == pytest.approx([1.25, 0.0, -0.85, 0.0])


def test_a_wrong_token_that_became_three_times_as_likely_is_left_alone() -> None:
    tokens = tokens_at([2.9, 3.1], [-1.0, -1.0])
    value = OBJECTIVE.surrogate(tokens, DapoObjective())
    assert value.tolist() == pytest.approx([-2.9, -3.0])
    assert gradient(value, tokens).tolist() == pytest.approx([-2.9, 0.0])
