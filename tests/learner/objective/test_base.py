import torch
from hypothesis import given

from learner.objective import Objective
from learner.objective.grpo import OBJECTIVE as GRPO
from learner.objective.reinforce import reinforce
from services.config.objectives.grpo import GrpoObjective
from services.config.objectives.reinforce import ReinforceObjective
from tests.learner.objective.strategies import SEEDS, ragged, tokens_at, tokens_of


@given(SEEDS)
def test_the_slope_is_taken_at_the_current_policy_and_needs_no_graph(seed: int) -> None:
    tokens = tokens_of(ragged(seed))
    with torch.no_grad():
        slope = Objective(reinforce).slope(tokens, ReinforceObjective())
    assert torch.equal(slope, tokens.advantage)
    assert tokens.logp.grad is None


def test_the_slope_is_zero_where_the_surrogate_is_clipped() -> None:
    tokens = tokens_at([1.5, 1.1, 0.5], [1.0, 1.0, -1.0])
    assert (GRPO.slope(tokens, GrpoObjective()) == 0).tolist() == [True, False, True]


@given(SEEDS)
def test_tokens_weigh_alike_unless_the_objective_says_otherwise(seed: int) -> None:
    tokens = tokens_of(ragged(seed))
    assert torch.equal(Objective(reinforce).token_weight(tokens, None), torch.ones_like(tokens.current_logp))
