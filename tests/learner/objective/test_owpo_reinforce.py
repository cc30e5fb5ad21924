import pytest

from learner.objective.owpo_reinforce import OBJECTIVE
from services.config.objectives.owpo_reinforce import OwpoReinforceObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_the_gradient_is_the_advantage_and_the_weight_that_of_owpo() -> None:
    tokens = tokens_at([4.0, 0.8, 4.0], [1.0, 1.0, -1.0], over="reference")
    settings = OwpoReinforceObjective()
    assert gradient(OBJECTIVE.surrogate(tokens, settings), tokens).tolist() == [1.0, 1.0, -1.0]
    assert OBJECTIVE.token_weight(tokens, settings).tolist() == pytest.approx([0.5, 1.25, 2.0])
