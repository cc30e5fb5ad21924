import pytest

from learner.objective import OBJECTIVES
from learner.objective.grpo import grpo
from services.config.objectives.base import ClipRange
from services.config.objectives.grpo import GrpoObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_a_token_moves_until_its_ratio_reaches_the_bound_on_its_side() -> None:
    tokens = tokens_at([0.5, 1.1, 1.3, 0.5, 0.9, 1.3], [1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    assert gradient(grpo(tokens, GrpoObjective()), tokens).tolist() == pytest.approx([0.5, 1.1, 0.0, 0.0, -0.9, -1.3])


def test_the_bounds_are_those_of_the_settings() -> None:
    tokens = tokens_at([1.3], [1.0])
    wide = GrpoObjective(clip=ClipRange(low=0.2, high=0.5))
    assert gradient(grpo(tokens, wide), tokens).tolist() == pytest.approx([1.3])


@pytest.mark.parametrize("kind", ["dr_grpo", "dapo", "mc_grpo"])
def test_its_relatives_have_its_surrogate(kind: str) -> None:
    assert OBJECTIVES[kind].surrogate is grpo
    assert OBJECTIVES[kind].statistics is None
