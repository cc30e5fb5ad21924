import itertools
import math

import pytest
import torch

from learner.objective.advantage import group_advantages
from services.config.advantage import AdvantageConfig
from tests.learner.every_objective import settings

MAXRL = AdvantageConfig(baseline="mean", normalize="mean")


def advantage(rewards: list[float]) -> list[float]:
    reward = torch.tensor(rewards, dtype=torch.float64)
    group = torch.zeros(len(rewards), dtype=torch.int64)
    found: list[float] = group_advantages(reward, group, torch.ones_like(group), MAXRL).tolist()
    return found


def test_it_is_what_the_objective_comes_with() -> None:
    assert settings("maxrl").advantage == MAXRL
    assert advantage([1.0, 0.0, 0.0, 0.0]) == pytest.approx([3.0, -1.0, -1.0, -1.0])
    assert advantage([1.0, 0.0, 1.0, 1.0]) == pytest.approx([1 / 3, -1.0, 1 / 3, 1 / 3])


@pytest.mark.parametrize("rewards", [[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, 0.0], [-0.3, 0.1, 0.2], [-5.0, 1.0]])
def test_a_group_without_a_positive_mean_or_without_variance_has_none(rewards: list[float]) -> None:
    assert advantage(rewards) == [0.0] * len(rewards)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_its_mean_gradient_is_that_of_the_beginning_of_the_series_of_the_logarithm(n: int, p: float) -> None:
    """Every group of n answers that are right with chance p, weighed by its probability; the gradient is by p."""
    mean = 0.0
    for rewards in itertools.product([0.0, 1.0], repeat=n):
        probability = math.prod(p if r else 1 - p for r in rewards)
        score = [1 / p if r else -1 / (1 - p) for r in rewards]  # d log pi / dp
        mean += probability * sum(a * s for a, s in zip(advantage(list(rewards)), score, strict=True)) / n
    assert mean == pytest.approx(sum((1 - p) ** (j - 1) for j in range(1, n)), rel=1e-6)
