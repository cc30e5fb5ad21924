import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.engine.head import token_statistics
from learner.objective.baseline import all_equal, group_mean, log_gradient_norm, minimum_variance_baseline, reward_sign
from learner.objective.importance import importance_weight
from services.config.advantage import ImportanceConfig
from tests.learner.objective.strategies import SEEDS, groups, ragged

GROUPS = groups()


def log_norms(seed: int, count: int, spread: float = 5.0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * spread


@given(GROUPS, SEEDS)
def test_lies_strictly_between_the_rewards_next_to_the_mean(group: tuple[Tensor, Tensor], seed: int) -> None:
    reward, index = group
    b = minimum_variance_baseline(reward, log_norms(seed, len(reward)), index)[index]
    sign = reward_sign(reward, index)
    assert torch.equal((reward - b).sign()[sign != 0], sign[sign != 0])


@given(GROUPS, st.sampled_from([-1.0, 0.0, 1.0]))
def test_keeps_every_sign_when_one_side_has_no_norm(group: tuple[Tensor, Tensor], side: float) -> None:
    reward, index = group
    sign = reward_sign(reward, index)
    log_norm = torch.where(sign == side, -math.inf, 0.0).double()
    b = minimum_variance_baseline(reward, log_norm, index)[index]
    assert torch.isfinite(b).all()
    assert torch.equal((reward - b).sign()[sign != 0], sign[sign != 0])


@given(groups(st.sampled_from([0.0, 1.0])), SEEDS)
def test_minimizes_the_weighted_square(group: tuple[Tensor, Tensor], seed: int) -> None:
    reward, index = group
    log_norm = log_norms(seed, len(reward), spread=1.0)
    b = minimum_variance_baseline(reward, log_norm, index)

    def cost(candidate: Tensor) -> Tensor:
        return torch.zeros_like(b).index_add(0, index, log_norm.exp() * (reward - candidate[index]).square())

    for other in (b + 0.01, b - 0.01, group_mean(reward, index)):
        assert (cost(b) <= cost(other) + 1e-9).all()


@given(GROUPS, SEEDS, st.floats(-3, 3))
def test_moves_with_the_rewards(group: tuple[Tensor, Tensor], seed: int, shift: float) -> None:
    reward, index = group
    if not torch.equal(reward_sign(reward + shift, index), reward_sign(reward, index)):
        return  # a reward at the mean up to rounding
    log_norm = log_norms(seed, len(reward))
    moved = minimum_variance_baseline(reward + shift, log_norm, index)
    assert torch.allclose(moved, minimum_variance_baseline(reward, log_norm, index) + shift, atol=1e-9)


@given(groups(st.sampled_from([0.0, 1.0])), st.floats(-1e4, 1e4))
def test_is_the_mean_for_equal_norms_however_small(group: tuple[Tensor, Tensor], log_norm: float) -> None:
    reward, index = group
    b = minimum_variance_baseline(reward, torch.full_like(reward, log_norm), index)
    assert torch.allclose(b, group_mean(reward, index), atol=1e-9)


@pytest.mark.parametrize("log_norm", [-math.inf, math.nan])
def test_is_the_mean_when_no_norm_is_usable(log_norm: float) -> None:
    reward, index = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    assert minimum_variance_baseline(reward, torch.full_like(reward, log_norm), index).item() == pytest.approx(2 / 3)


@given(st.lists(st.integers(0, 10), min_size=2, max_size=9), st.integers(-30, 30))
def test_a_reward_at_the_mean_has_no_sign_whatever_the_rounding_of_the_mean(tenths: list[int], more: int) -> None:
    """In tenths few means are what they should be: that of 0.1, 0.2 and 0.3 is above 0.2."""
    reward = torch.tensor([(x + more) / 10 for x in tenths], dtype=torch.float64)
    expected = [(len(tenths) * x > sum(tenths)) - (len(tenths) * x < sum(tenths)) for x in tenths]
    assert reward_sign(reward, torch.zeros(len(tenths), dtype=torch.int64)).tolist() == expected


@given(st.integers(2, 30), st.floats(-10, 10).map(lambda x: float(torch.tensor(x))))
def test_equal_rewards_have_no_sign(count: int, reward: float) -> None:
    equal = torch.full((count,), reward, dtype=torch.float64)
    assert (reward_sign(equal, torch.zeros(count, dtype=torch.int64)) == 0).all()
    assert all_equal(equal.tolist())


REWARDS = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.1 + 0.2, 0.3, 0.0, -0.0]))


@given(st.lists(st.sampled_from([0.1 + 0.2, 0.3]), max_size=9) | st.lists(REWARDS, max_size=9))
def test_rewards_are_all_equal_exactly_if_none_has_a_sign(rewards: list[float]) -> None:
    signs = reward_sign(torch.tensor(rewards, dtype=torch.float64), torch.zeros(len(rewards), dtype=torch.int64), 1)
    assert all_equal(rewards) == (not signs.any())


@given(SEEDS)
def test_the_norm_is_the_definition_and_blind_to_masked_garbage(seed: int) -> None:
    b = ragged(seed)
    weight, log_weight = torch.full_like(b["logp"], 1.5), torch.linspace(-1, 1, 6, dtype=torch.float64)
    residual = (1.1 * (1 - b["logp"].exp()).square()).sqrt()
    got = log_gradient_norm(log_weight, weight, residual, b["mask"], b["lengths"], per_token=False)
    ends = [0, *b["lengths"].cumsum(0).tolist()]
    for i, (start, end) in enumerate(itertools.pairwise(ends)):
        tokens = [t for t in range(start, end) if b["mask"][t]]
        total = sum(1.5**2 * float(residual[t]) ** 2 for t in tokens)
        assert got[i].item() == pytest.approx(
            math.log(math.exp(log_weight[i]) ** 2 / len(tokens) ** 2 * total), rel=1e-5, abs=1e-5
        )
    for garbage in (torch.nan, torch.inf):
        dirty = torch.where(b["mask"], residual, garbage)
        same = log_gradient_norm(log_weight, weight, dirty, b["mask"], b["lengths"], per_token=False)
        assert torch.equal(got, same)


def test_the_proxy_is_the_exact_norm_of_the_logit_gradient() -> None:
    """For one token the gradient of log p_y by the logits is onehot - p: its square is 1 - 2 p_y + sum p^2."""
    logits = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(-1)
    (gradient,) = torch.autograd.grad(log_p[0, 1], logits)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.int64)
    of_head = token_statistics(torch.ones(1, 1), logits.detach().t().float(), one, torch.ones(1), chunk=1)
    got = log_gradient_norm(zero, torch.ones(1), of_head[2], one.bool(), one, per_token=False)
    assert got.exp().item() == pytest.approx(float(gradient.square().sum()), rel=1e-6)


@pytest.mark.parametrize("drift", [0.0, 0.3, 1.0, 2.0])
def test_no_constant_has_less_variance_over_the_whole_population(drift: float) -> None:
    """Exact sums over a bandit's actions, untruncated weights: Var of w (R - b) grad log pi, by b."""
    random = torch.Generator().manual_seed(int(drift * 10))
    for _ in range(50):
        behavior = torch.randn(6, generator=random, dtype=torch.float64).log_softmax(0)
        logp = (behavior + drift * torch.randn(6, generator=random, dtype=torch.float64)).log_softmax(0)
        reward = (torch.rand(6, generator=random) < 0.5).double()
        w, score = (logp - behavior).exp(), torch.eye(6, dtype=torch.float64) - logp.exp()
        one = torch.ones(6, dtype=torch.int64)  # each action is a response of one token
        log_norm = log_gradient_norm(logp - behavior, one, score.norm(dim=-1), one.bool(), one, per_token=False)
        best = minimum_variance_baseline(reward, behavior + log_norm, torch.zeros_like(one))

        def variance(b: float, w=w, score=score, reward=reward, behavior=behavior) -> float:  # type: ignore[no-untyped-def]
            g = (w * (reward - b))[:, None] * score
            mean = (behavior.exp()[:, None] * g).sum(0)
            return float((behavior.exp() * (g - mean).square().sum(-1)).sum())

        # Not 0 and 1: the baseline keeps a margin from the rewards themselves.
        assert all(
            variance(float(best)) <= variance(b) + 1e-12
            for b in (0.01, 0.5, 0.99, float((behavior.exp() * reward).sum()))
        )


def bandit(seed: int, drift: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(probabilities of behavior, ratios, scores, rewards) of six actions."""
    random = torch.Generator().manual_seed(seed)
    behavior = torch.randn(6, generator=random, dtype=torch.float64).log_softmax(0)
    logp = (behavior + drift * torch.randn(6, generator=random, dtype=torch.float64)).log_softmax(0)
    reward = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    return behavior.exp(), (logp - behavior).exp(), torch.eye(6, dtype=torch.float64) - logp.exp(), reward


def weight_of(ratio: Tensor, cap: float) -> Tensor:
    """Importance weights of responses of one token."""
    return importance_weight(ratio.log(), torch.ones(len(ratio), dtype=torch.int64), ImportanceConfig(cap=cap))


@pytest.mark.parametrize("drift", [0.0, 1.0, 2.0])
def test_a_constant_baseline_leaves_the_mean_gradient_only_without_truncation(drift: float) -> None:
    gap = 0.0
    for seed in range(20):
        mu, ratio, score, reward = bandit(seed, drift)

        def mean_gradient(weight: Tensor, b: float, mu=mu, score=score, reward=reward) -> Tensor:  # type: ignore[no-untyped-def]
            gradient: Tensor = ((mu * weight * (reward - b))[:, None] * score).sum(0)
            return gradient

        whole = weight_of(ratio, cap=1e6)
        assert torch.allclose(mean_gradient(whole, 0.0), mean_gradient(whole, 0.7), atol=1e-6)
        cut = weight_of(ratio, cap=1.2)
        gap = max(gap, float((mean_gradient(cut, 0.0) - mean_gradient(cut, 0.7)).abs().max()))
    assert (gap > 1e-3) == (drift > 0)


def test_over_many_groups_the_plug_in_baseline_has_the_smaller_mean_squared_error() -> None:
    """Drawn groups of eight, truncated weights: it is biased, so the error and not the bias is compared."""
    mu, ratio, score, reward = bandit(1, 1.0)
    weight, many, size = ratio.clamp(max=8.0), 4000, 8
    actions = torch.multinomial(mu, many * size, replacement=True, generator=torch.Generator().manual_seed(0))
    index = torch.arange(many).repeat_interleave(size)
    log_norm = (weight[actions].square() * score[actions].square().sum(-1)).log()
    exact = ((mu * ratio * reward)[:, None] * score).sum(0)
    errors = []
    for baseline in (
        minimum_variance_baseline(reward[actions], log_norm, index),
        group_mean(reward[actions], index),
    ):
        terms = (weight[actions] * (reward[actions] - baseline[index]))[:, None] * score[actions]
        estimate = torch.zeros(many, 6, dtype=torch.float64).index_add(0, index, terms) / size
        errors.append(float((estimate - exact).square().sum(-1).mean()))
    assert errors[0] < errors[1]
