"""POPO against its formula, in float64 and group by group, written down here and nowhere taken from the code."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import Tensor

from learner.objective.popo import popo, popo_groups
from learner.objective.tokens import Tokens
from services.config.objectives.popo import PopoObjective
from tests.learner.every_objective import settings
from tests.learner.objective.strategies import SEEDS, ragged, tokens_of

LENGTHS, GROUP = [2, 3, 1, 4, 2], [0, 0, 0, 1, 1]
REWARD = [1.0, 0.3, 0.0, 0.0, 0.0]
"""Two positive responses in the first group of three, none in the second of two."""


def made() -> Tokens:
    random = torch.Generator().manual_seed(3)
    count, n = sum(LENGTHS), len(LENGTHS)
    logp = -torch.rand(count, generator=random, dtype=torch.float64)
    hidden = torch.randn(3, n, 4, generator=random, dtype=torch.float64)
    base = tokens_of(ragged(1), dtype=torch.float64)
    positive = torch.tensor(REWARD, dtype=torch.float64) > 0
    advantage = torch.where(positive, 3 / 2, 0.0).double()  # n / |S|
    return dataclasses.replace(
        base,
        logp=logp.clone().requires_grad_(),
        current_logp=logp,
        entropy=torch.rand(count, generator=random, dtype=torch.float64).requires_grad_(),
        hidden=hidden[0],
        predicted_hidden=hidden[1].clone().requires_grad_(),
        reference_hidden=hidden[2],
        advantage=advantage.repeat_interleave(torch.tensor(LENGTHS)),
        group=torch.tensor(GROUP),
        lengths=torch.tensor(LENGTHS),
    )


def objective(tokens: Tokens, own: PopoObjective) -> Tensor:
    """The sum that a step makes of it: the mean over n sequences of means over tokens."""
    value = popo(dataclasses.replace(tokens, statistics=popo_groups(tokens, own)), own)
    return tokens.sequence_mean(value).sum() / len(tokens.lengths)


def formula(tokens: Tokens, alpha: float, beta: float, *, normalized: bool) -> Tensor:
    """-(3/5 of the first prompt's loss): its three responses are 3 of 5, and the other prompt has no positive one."""
    parts = tokens.logp.split(LENGTHS)
    entropies = tokens.entropy.split(LENGTHS)
    log_pi = [part.mean() if normalized else part.sum() for part in parts]
    total = sum(math.exp(x.item()) for x in log_pi[:2])
    weight = [math.exp(x.item()) / total for x in log_pi[:2]]
    nll = sum((-w * x for w, x in zip(weight, log_pi[:2], strict=True)), torch.zeros(()))
    near = torch.zeros(())
    for w, p, t in zip(weight, tokens.predicted_hidden[:2], tokens.reference_hidden[:2], strict=True):
        near = near - w * (p @ t) / (p.norm() * t.norm())
    entropy = -(entropies[0].mean() + entropies[1].mean()) / 2
    loss: Tensor = nll + alpha * near + beta * entropy
    return -loss * 3 / 5


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.01), (0.0, 0.3), (2.0, 0.0)])
@pytest.mark.parametrize("normalized", [False, True])
def test_value_and_gradients_are_those_of_the_formula(alpha: float, beta: float, normalized: bool) -> None:
    own = PopoObjective(alpha=alpha, beta=beta, length_normalized=normalized)
    tokens = made()
    fields = (tokens.logp, tokens.entropy, tokens.predicted_hidden)
    got, expected = objective(tokens, own), formula(tokens, alpha, beta, normalized=normalized)
    assert got.item() == pytest.approx(expected.item(), rel=1e-9)
    found: list[Any] = [torch.autograd.grad(x, fields, allow_unused=True, retain_graph=True) for x in (got, expected)]
    for a, b in zip(*found, strict=True):
        zero = torch.zeros((), dtype=torch.float64)
        assert torch.allclose(zero if a is None else a, zero if b is None else b, rtol=1e-9, atol=1e-12)


def test_responses_too_improbable_for_a_float_have_weights_all_the_same() -> None:
    tokens = made()
    own = PopoObjective()
    near = objective(tokens, own)
    (plain,) = torch.autograd.grad(near, tokens.logp)
    far = dataclasses.replace(
        tokens, current_logp=tokens.current_logp - 2000.0 / tokens.lengths.double().repeat_interleave(tokens.lengths)
    )
    (got,) = torch.autograd.grad(objective(far, own), tokens.logp)
    assert torch.allclose(got, plain, rtol=1e-8)


@given(SEEDS)
def test_without_positives_there_is_a_graph_and_no_gradient(seed: int) -> None:
    t = tokens_of(ragged(seed))
    t = dataclasses.replace(t, advantage=torch.zeros_like(t.advantage))
    (got,) = torch.autograd.grad(objective(t, PopoObjective()), t.logp)
    assert torch.equal(got, torch.zeros_like(got))


def test_it_comes_with_what_its_authors_name() -> None:
    config: Any = settings("popo")
    assert (config.objective.alpha, config.objective.beta, config.reference.decay) == (0.1, 0.01, 0.995)
    assert (config.advantage.baseline, config.advantage.positive_above, config.zero_variance) == (
        "positives",
        0.0,
        "train",
    )
    assert (config.objective.trains_predictor, config.objective.reference_noise) == (4096, 0.01)


def test_settings_of_its_former_form_name_that_form() -> None:
    with pytest.raises(ValueError, match=r'similarity belonged to .* type = "popo_ratio"'):
        settings("popo", objective={"type": "popo", "similarity": 0.1})
