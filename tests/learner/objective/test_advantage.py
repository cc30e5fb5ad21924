import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.objective.advantage import advantages
from learner.objective.baseline import group_mean, minimum_variance_baseline, reward_sign
from tests.learner.objective.strategies import SEEDS, groups

NORMALIZE = st.sampled_from(["none", "sample_std", "population_std"])


@given(groups(), NORMALIZE, SEEDS)
def test_signs_are_those_of_reward_less_mean(group: tuple[Tensor, Tensor], normalize: str, seed: int) -> None:
    reward, index = group
    log_norm = torch.randn(len(reward), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 5
    for baseline in (group_mean(reward, index), minimum_variance_baseline(reward, log_norm, index)):
        got = advantages(reward, baseline, index, normalize)  # type: ignore[arg-type]
        assert torch.equal(got.sign().double(), reward_sign(reward, index))


def test_a_reward_at_the_mean_has_none_whatever_the_baseline() -> None:
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
