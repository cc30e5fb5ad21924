"""Properties of every objective."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import given
from pydantic import ValidationError
from torch import Tensor

from learner.objective import OBJECTIVES
from learner.objective.tokens import Tokens
from services.config.base import Strict
from services.config.objectives.registry import OURS
from tests.learner.every_objective import VARIANTS, settings
from tests.learner.objective.strategies import SEEDS, ragged, tokens_of

EVERY = pytest.mark.parametrize("variant", VARIANTS)


def surrogate(variant: str, tokens: Tokens, logp: Tensor) -> Tensor:
    chosen = settings(variant).objective
    objective = OBJECTIVES[chosen.type]
    if objective.statistics is not None:
        tokens = dataclasses.replace(tokens, statistics=objective.statistics(tokens, chosen))
    weight = objective.token_weight(tokens, chosen)
    return weight * objective.surrogate(dataclasses.replace(tokens, logp=logp), chosen)


@EVERY
@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_derivatives_are_those_of_finite_differences(variant: str, on_policy: bool, seed: int) -> None:
    """In float64. What is under a stop-gradient is a field of its own, which finite differences leave as it is."""
    tokens = tokens_of(ragged(seed), on_policy=on_policy, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logp: surrogate(variant, tokens, logp), tokens.logp, eps=1e-7, atol=1e-5)


@EVERY
@hypothesis.settings(max_examples=20)
@given(seed=SEEDS)
def test_there_is_one_finite_value_and_gradient_a_token(variant: str, seed: int) -> None:
    tokens = tokens_of(ragged(seed), on_policy=False)
    value = surrogate(variant, tokens, tokens.logp)
    (got,) = torch.autograd.grad(value.sum(), tokens.logp)
    assert value.shape == got.shape == tokens.logp.shape
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
    assert torch.isfinite(got).all()


@EVERY
def test_ratios_beyond_every_bound_leave_value_and_gradient_finite(variant: str) -> None:
    for far in (-300.0, 300.0):
        tokens = tokens_of(ragged(5), on_policy=False)
        tokens = dataclasses.replace(tokens, behavior_logp=tokens.current_logp + far)
        if variant not in ("opd", "mopd", "opd with outcome", "mopd with weights"):
            tokens = dataclasses.replace(tokens, proximal_logp=tokens.current_logp + far)
        value = surrogate(variant, tokens, tokens.logp)
        (got,) = torch.autograd.grad(value.sum(), tokens.logp)
        assert torch.isfinite(value).all()
        assert torch.isfinite(got).all()


def numbers(section: Strict, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where the floats of a section are."""
    for name, value in section:
        if isinstance(value, Strict):
            yield from numbers(value, (*path, name))
        elif isinstance(value, float):
            yield (*path, name)


@pytest.mark.parametrize("kind", OURS)
def test_every_number_that_a_setting_may_have_leaves_the_loss_a_number(kind: str) -> None:
    own = settings(kind).objective
    for path in numbers(own):
        for extreme in (0.0, 1e-30, 1e-9, 1.0, 1e9, 1e30, -1e30, 1e-31, 1e39, 5e-324, 1.7e308):
            given: dict[str, Any] = {"type": kind}
            at = given
            for name in path[:-1]:
                at = at.setdefault(name, {})
            at[path[-1]] = extreme
            try:
                chosen = settings(kind, objective=given).objective
            except ValidationError:
                continue
            assert extreme == 0.0 or 1e-30 <= abs(extreme) <= 1e30, (path, extreme)
            objective, tokens = OBJECTIVES[kind], tokens_of(ragged(5), on_policy=False)
            if objective.statistics is not None:
                tokens = dataclasses.replace(tokens, statistics=objective.statistics(tokens, chosen))
            value = objective.token_weight(tokens, chosen) * objective.surrogate(tokens, chosen)
            (got,) = torch.autograd.grad(value.sum(), tokens.logp)
            assert torch.isfinite(value).all(), (path, extreme)
            assert torch.isfinite(got).all(), (path, extreme)


def test_a_number_that_float32_does_not_have_is_refused_with_its_key() -> None:
    for kind, wrong, key in (
        ("grpo", {"clip": {"high": 1e39}}, r"clip\.high = 1e\+39"),
        ("sapo", {"tau_negative": 1e-40}, "tau_negative = 1e-40"),
        ("mopd", {"weights": [1.0, 1e39]}, r"weights\[1\] = 1e\+39"),
    ):
        with pytest.raises(ValidationError, match=key):
            settings(kind, objective={"type": kind, **wrong})


CLIPPED = ["owpo", "grpo", "dr_grpo", "dapo", "mc_grpo", "cispo", "gspo", "sapo", "acpo", "bapo"]


@pytest.mark.parametrize("kind", [*CLIPPED, "reinforce", "owpo_reinforce"])
@given(seed=SEEDS)
def test_where_all_policies_are_one_it_is_the_policy_gradient(kind: str, seed: int) -> None:
    """Ratio 1: the gradient of each token is its advantage, however the objective bounds what comes after."""
    tokens = tokens_of(ragged(seed))
    same = dataclasses.replace(tokens, behavior_logp=tokens.current_logp, reference_logp=tokens.current_logp)
    (got,) = torch.autograd.grad(surrogate(kind, same, tokens.logp).sum(), tokens.logp)
    assert torch.allclose(got, tokens.advantage, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind, member in OURS.items() if member.proportional])
@given(seed=SEEDS)
def test_what_is_called_proportional_to_the_advantage_is(kind: str, seed: int) -> None:
    tokens = tokens_of(ragged(seed), on_policy=False)
    sizes = torch.linspace(0.1, 9.0, len(tokens.lengths)).repeat_interleave(tokens.lengths)
    larger = dataclasses.replace(tokens, advantage=tokens.advantage * sizes)
    (one,) = torch.autograd.grad(surrogate(kind, tokens, tokens.logp).sum(), tokens.logp)
    (other,) = torch.autograd.grad(surrogate(kind, larger, tokens.logp).sum(), tokens.logp)
    assert torch.allclose(other, one * sizes, rtol=1e-4, atol=1e-6)
