import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from learner.objective.advantage import advantages, group_advantages, pivots
from learner.objective.baseline import group_mean, minimum_variance_baseline, reward_sign
from services.config.advantage import AdvantageConfig
from tests.learner.objective.strategies import SEEDS, groups

NORMALIZE = st.sampled_from(["none", "sample_std", "population_std"])


@given(groups(), NORMALIZE, SEEDS)
def test_signs_are_those_of_reward_less_mean(group: tuple[Tensor, Tensor], normalize: str, seed: int) -> None:
    reward, index = group
    log_norm = torch.randn(len(reward), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 5
    for baseline in (group_mean(reward, index), minimum_variance_baseline(reward, log_norm, index)):
        got = advantages(reward, baseline, index, normalize)  # type: ignore[arg-type]
        assert torch.equal(got.sign().double(), reward_sign(reward, index))


def test_a_reward_at_the_mean_has_no_advantage_under_any_baseline() -> None:
    reward, index = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    got = advantages(reward, torch.tensor([0.3], dtype=torch.float64), index, "none")
    assert torch.allclose(got, torch.tensor([-0.3, 0.0, 0.7]))
    assert got[1] == 0


def test_deviations_are_as_published() -> None:
    reward, index = torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    mean = group_mean(reward, index)
    centered = reward - 0.75
    sample, population = (
        advantages(reward, mean, index, "sample_std"),
        advantages(reward, mean, index, "population_std"),
    )
    assert torch.allclose(sample.double(), centered / (reward.std() + 1e-6))
    assert torch.allclose(population.double(), centered / reward.std(correction=0))


@given(groups(), NORMALIZE)
def test_centered_advantages_sum_to_zero_in_each_group(group: tuple[Tensor, Tensor], normalize: str) -> None:
    reward, index = group
    got = advantages(reward, group_mean(reward, index), index, normalize).double()  # type: ignore[arg-type]
    assert torch.zeros(int(index.max()) + 1, dtype=torch.float64).index_add(0, index, got).abs().max() == pytest.approx(
        0, abs=1e-4
    )


def estimate(reward: Tensor, index: Tensor, tokens: Tensor | None = None, **settings: object) -> Tensor:
    tokens = torch.ones_like(index) if tokens is None else tokens
    return group_advantages(reward, index, tokens, AdvantageConfig.model_validate(settings)).double()


@given(groups())
def test_leave_one_out_is_the_mean_of_the_others(group: tuple[Tensor, Tensor]) -> None:
    reward, index = group
    got = estimate(reward, index, baseline="leave_one_out")
    for i in range(len(reward)):
        others = (index == index[i]) & (torch.arange(len(index)) != i)
        assert got[i].item() == pytest.approx(float(reward[i] - reward[others].mean()), abs=1e-5)


@given(groups(), SEEDS)
def test_length_weighted_is_the_mean_reward_of_a_token(group: tuple[Tensor, Tensor], seed: int) -> None:
    reward, index = group
    tokens = torch.randint(1, 9, index.shape, generator=torch.Generator().manual_seed(seed))
    got = estimate(reward, index, tokens, baseline="length_weighted")
    assert torch.zeros(4, dtype=torch.float64).index_add(0, index, got * tokens).abs().max() < 1e-4
    equal = estimate(reward, index, torch.full_like(index, 3), baseline="length_weighted")
    assert torch.allclose(equal, estimate(reward, index, baseline="mean"), atol=1e-6)


@given(groups())
def test_the_median_leaves_as_many_above_as_below(group: tuple[Tensor, Tensor]) -> None:
    reward, index = group
    got, chosen = estimate(reward, index, baseline="median"), pivots(reward, index)
    assert (got[chosen] == 0).all()
    assert torch.equal(index[chosen], torch.arange(len(chosen)))
    for g in range(len(chosen)):
        above, below = int((got[index == g] > 0).sum()), int((got[index == g] < 0).sum())
        size = int((index == g).sum())
        assert above <= size // 2
        assert below <= size // 2


def test_the_first_of_tied_medians_is_the_pivot() -> None:
    reward = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    assert pivots(reward, torch.zeros(5, dtype=torch.int64)).tolist() == [1]
    # Binary rewards: the whole majority has advantage 0, not the pivot alone.
    assert estimate(reward, torch.zeros(5, dtype=torch.int64), baseline="median").tolist() == [-1, 0, 0, -1, 0]


@given(groups(), st.floats(0.1, 5.0))
def test_log_mean_exp_is_between_mean_and_maximum(group: tuple[Tensor, Tensor], tau: float) -> None:
    reward, index = group
    baseline = reward - estimate(reward, index, baseline="log_mean_exp", tau=tau)
    assert (baseline >= group_mean(reward, index)[index] - 1e-5).all()
    for g in range(int(index.max()) + 1):
        assert (baseline[index == g] <= reward[index == g].max() + 1e-5).all()


def test_log_mean_exp_comes_to_the_mean_as_tau_grows() -> None:
    reward, index = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    for tau in (1e9, 1e18, 1e300):
        assert estimate(reward, index, baseline="log_mean_exp", tau=tau)[0].item() == pytest.approx(-2 / 3, rel=1e-6)


@pytest.mark.parametrize(
    "rewards", [[0.0, 1.0, 0.0], [0.0, 0.2, 0.7, 0.9, 1.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.5, 1.0], [0.0, 1.0]]
)
def test_the_median_deviation_is_that_of_the_released_code(rewards: list[float]) -> None:
    """(R - median) / (MAD + 1e-3), and what is not 0 times n over the number of those."""
    median = statistics.median_low(rewards)
    away = [r - median for r in rewards]
    mad = statistics.median_low([abs(x) for x in away])
    apart = sum(x != 0 for x in away)
    expected = [x / (mad + 1e-3) * len(rewards) / apart if x else 0.0 for x in away]
    index = torch.zeros(len(rewards), dtype=torch.int64)
    reward = torch.tensor(rewards, dtype=torch.float64)
    got = estimate(reward, index, baseline="median", normalize="median_deviation")
    assert got.tolist() == pytest.approx(expected, rel=1e-6)


def test_a_median_deviation_from_another_baseline_is_refused() -> None:
    with pytest.raises(ValidationError, match='needs baseline = "median"'):
        AdvantageConfig(baseline="mean", normalize="median_deviation")


def test_log_mean_exp_is_the_definition() -> None:
    reward, index = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    expected = 0.5 * math.log((1 + 2 * math.exp(2)) / 3)
    assert estimate(reward, index, baseline="log_mean_exp", tau=0.5)[0].item() == pytest.approx(-expected, rel=1e-6)


@given(groups(), SEEDS)
def test_positives_weigh_alike_and_each_group_as_its_size(group: tuple[Tensor, Tensor], seed: int) -> None:
    reward, index = group
    got = estimate(reward, index, baseline="positives")
    assert torch.equal(got > 0, reward > 0.5)
    assert torch.equal(estimate(reward, index, baseline="positives", positive_above=0.0) > 0, reward > 0)
    for g in range(int(index.max()) + 1):
        here, some = got[index == g], bool((reward[index == g] > 0.5).any())
        assert here.sum().item() == pytest.approx(float((index == g).sum()) if some else 0.0, rel=1e-5)


BASELINES = st.sampled_from(["mean", "leave_one_out", "length_weighted", "median", "log_mean_exp"])


@given(st.floats(-3, 3), st.integers(2, 9), BASELINES, NORMALIZE)
def test_equal_rewards_have_no_advantage_under_any_baseline(
    value: float, count: int, baseline: str, normalize: str
) -> None:
    reward = torch.full((count,), value, dtype=torch.float32).double()
    index, tokens = torch.zeros(count, dtype=torch.int64), torch.arange(count) + 3
    assert not estimate(reward, index, tokens, baseline=baseline, normalize=normalize).any()


@given(groups(), BASELINES)
def test_a_constant_more_for_all_changes_no_advantage(group: tuple[Tensor, Tensor], baseline: str) -> None:
    reward, index = group
    got, moved = estimate(reward, index, baseline=baseline), estimate(reward + 4.0, index, baseline=baseline)
    assert torch.allclose(got, moved, atol=1e-5)
