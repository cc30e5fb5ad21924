import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.objective import OBJECTIVES
from learner.objective.owpo import one_way_weight
from learner.objective.surrogate import clipped_surrogate
from services.config.objectives.base import ClipRange
from services.config.objectives.grpo import GrpoObjective
from services.config.objectives.opd import OpdObjective
from services.config.objectives.owpo import OwpoObjective
from tests.learner.objective.strategies import SEEDS, ragged, tokens_of

CLIP = ClipRange()
BOUNDS = st.tuples(st.floats(0.01, 1.0), st.floats(1.0, 50.0))


def gradient(settings: OwpoObjective | GrpoObjective | OpdObjective, b: dict[str, Tensor]) -> Tensor:
    """d loss / d logp for each token, proximal = current; the first sequence's advantage is 0."""
    b = {**b, "advantage": torch.cat([torch.zeros(1), b["advantage"][1:]])}
    tokens = tokens_of(b)
    tokens.reference_logp.requires_grad_()
    objective = OBJECTIVES[settings.type]
    loss = -(objective.token_weight(tokens, settings) * objective.surrogate(tokens, settings)).sum()
    got, none = torch.autograd.grad(loss, (tokens.logp, tokens.reference_logp), allow_unused=True)
    assert none is None  # nothing reaches the reference
    return got


@given(SEEDS, BOUNDS)
def test_weights_are_within_bounds_and_carry_no_gradient(seed: int, bounds: tuple[float, float]) -> None:
    b = ragged(seed)
    logp, ref_logp = (b["logp"] * 100).requires_grad_(), b["ref_logp"].requires_grad_()
    weight = one_way_weight(logp, ref_logp, torch.ones_like(b["logp"]), *bounds)
    assert not weight.requires_grad
    assert (weight.double() >= bounds[0] - 1e-6).all()
    assert (weight.double() <= bounds[1] * (1 + 1e-6)).all()


@given(st.floats(-50, 50), st.floats(0, 50), st.sampled_from([-1.0, 1.0]))
def test_the_further_ahead_the_smaller(delta: float, more: float, sign: float) -> None:
    ref = torch.zeros(2)
    weight = one_way_weight(sign * torch.tensor([delta, delta + more]), ref, torch.full((2,), sign), 0.5, 2.0)
    assert weight[1] <= weight[0]


@given(st.floats(-5, 5))
def test_is_symmetric_in_sign_and_direction(delta: float) -> None:
    ahead, zero, one = torch.tensor([delta]), torch.zeros(1), torch.ones(1)
    assert one_way_weight(ahead, zero, one, 0.5, 2.0) == one_way_weight(-ahead, zero, -one, 0.5, 2.0)


@given(SEEDS, BOUNDS)
def test_no_token_gradient_changes_its_sign_or_appears_from_nothing(seed: int, bounds: tuple[float, float]) -> None:
    b = ragged(seed)
    base = gradient(GrpoObjective(), b)
    got = gradient(OwpoObjective(weight_low=bounds[0], weight_high=bounds[1]), b)
    assert torch.equal(got.sign(), base.sign())


@given(SEEDS)
def test_a_kl_penalty_does_change_signs(seed: int) -> None:
    """Negative control: the property above is not true of everything. A KL term is distillation from the reference."""
    b = ragged(seed, sequences=40)
    b["behavior_logp"] = b["ref_logp"]  # so that both teachers are
    base, with_kl = gradient(GrpoObjective(), b), gradient(OpdObjective(outcome=1.0), b)
    assert (base * with_kl < 0).any()


@given(SEEDS)
def test_is_the_base_objective_when_the_reference_is_current(seed: int) -> None:
    b = ragged(seed)
    b["ref_logp"] = b["logp"].clone()
    assert torch.equal(gradient(OwpoObjective(), b), gradient(GrpoObjective(), b))


@given(SEEDS)
def test_is_the_base_objective_when_both_bounds_are_one(seed: int) -> None:
    b = ragged(seed)
    settings = OwpoObjective(weight_low=1.0, weight_high=1.0)
    assert torch.equal(gradient(settings, b), gradient(GrpoObjective(), b))


def test_no_advantage_or_no_reference_means_weight_one() -> None:
    logp, ref = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-9.0, -math.inf, math.nan])
    assert one_way_weight(logp, ref, torch.tensor([0.0, 1.0, 1.0]), 0.5, 2.0).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 2.0), (1.1, 2.0), (0.5, 0.9)])
def test_bounds_must_enclose_one(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="must enclose 1"):
        OwpoObjective(weight_low=low, weight_high=high)


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_the_surrogate_is_the_published_minimum(log_ratio: float, advantage: float) -> None:
    got = clipped_surrogate(torch.tensor([log_ratio]), torch.zeros(1), torch.tensor([advantage]), CLIP)
    r = math.exp(log_ratio)
    assert got.item() == pytest.approx(min(r * advantage, min(max(r, 0.8), 1.28) * advantage), rel=1e-4, abs=1e-6)


@given(SEEDS)
def test_one_step_a_batch_is_reinforce(seed: int) -> None:
    b = ragged(seed)
    advantage = torch.cat([torch.zeros(1), b["advantage"][1:]]).repeat_interleave(b["lengths"])
    assert torch.equal(gradient(GrpoObjective(), b), -advantage[b["mask"]])
