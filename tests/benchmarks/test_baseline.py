"""What is measured is what the learner steps on, and the moments are those of the gradients themselves."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.baseline.estimators import (
    YARDSTICK,
    advantages_of,
    agreement,
    coefficients,
    compare,
    halves_apart,
    mean_baselines,
    resampled_variances,
    resamplings,
    right_to_wrong,
    squared_mean,
    total_variance,
)
from benchmarks.baseline.gradients import Gradients, collect, products
from benchmarks.baseline.report import tables
from learner.batch.micro_batch import MicroBatch
from learner.batch.step_batch import assemble
from learner.engine.protocol import LossFunction
from learner.step.learner_step import learner_step
from services.config.learner import LearnerConfig
from services.wire.score import ScoredGroup
from tests.fakes.train_engine import BigramEngine
from tests.learner.tiny import scored_group

MIXED = [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
EQUAL = [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
AS_CONFIGURED = {
    YARDSTICK: "mean",
    "leave one out": "leave_one_out",
    "minimum variance, proxy": "minimum_variance",
    "minimum variance, exact": "minimum_variance_exact",
}


def config(kind: str, baseline: str = "mean") -> LearnerConfig:
    return LearnerConfig.model_validate(
        {
            "steps": 1,
            "groups_per_step": 4,
            "objective": {"type": kind},
            "advantage": {"baseline": baseline, "normalize": "none"},
            "ess": {"enabled": False},
        }
    )


def engine() -> BigramEngine:
    made = BigramEngine()
    random = torch.Generator().manual_seed(3)
    made.reference = made.logits + torch.randn(17, 17, generator=random) * 0.5
    made.reference_is_current = False
    return made


def gradient(micro_batch: MicroBatch, loss: LossFunction[Any]) -> Tensor:
    one = engine()
    one.backward([micro_batch], loss)
    return one.gradient.flatten()


def groups(rewards: list[list[float]]) -> list[ScoredGroup]:
    return [scored_group(i, rewards=r) for i, r in enumerate(rewards)]


def estimates(found: Gradients) -> dict[str, Tensor]:
    """By estimator, [G, P]."""
    whole = torch.stack(found.sums).double()
    return {name: coefficients(advantage, found) @ whole for name, advantage in advantages_of(found).items()}


@pytest.mark.parametrize("kind", ["reinforce", "owpo", "owpo_reinforce"])
@pytest.mark.parametrize("name", AS_CONFIGURED)
def test_the_mean_over_groups_is_the_gradient_of_the_learners_step(kind: str, name: str) -> None:
    settings, one = config(kind, AS_CONFIGURED[name]), engine()
    learner_step(one, assemble(groups(MIXED), 0, settings), settings, learning_rate=1.0)
    stepped = (engine().logits - one.logits).flatten().double()
    found = collect(engine(), groups(MIXED), 0, config(kind), gradient)
    assert torch.allclose(estimates(found)[name].mean(0), stepped, atol=1e-6)
    assert stepped.norm() > 1e-2


@pytest.mark.parametrize("kind", ["reinforce", "owpo"])
def test_groups_with_equal_rewards_have_a_gradient_only_without_a_baseline(kind: str) -> None:
    found = collect(engine(), groups([MIXED[0], *EQUAL, MIXED[1]]), 0, config(kind), gradient)
    for name, made in estimates(found).items():
        assert made[[0, 3]].norm(dim=1).min() > 1e-3
        assert made[1].norm() == 0
        assert (made[2].norm() > 1e-3) == (name == "none")
    assert found.mixed.tolist() == [True] * 3 + [False] * 6 + [True] * 3


def test_norms_are_those_of_each_sequence_by_hand() -> None:
    """The loss is that of REINFORCE: truncated importance ratio x mean log-prob."""
    settings, scored = config("reinforce"), groups(MIXED)
    found, batch, table = (
        collect(engine(), scored, 0, settings, gradient),
        assemble(scored, 0, settings),
        engine().logits,
    )
    ends, by_hand = batch.cu_seqlens.tolist(), []
    for i in range(len(batch)):
        free = table.clone().requires_grad_()
        whole = torch.cat([batch.prompt_ids[i][-1:], batch.response_ids[ends[i] : ends[i + 1]]])
        logp = free.log_softmax(-1)[whole[:-1], whole[1:]]
        rho = (logp.detach() - batch.behavior_logp[ends[i] : ends[i + 1]]).sum().exp().clamp(max=8.0)
        (one,) = torch.autograd.grad(rho * logp.mean() / 3, free)  # of three in the group
        by_hand.append(2 * one.double().norm().log())
    assert torch.allclose(found.log_norm, torch.stack(by_hand), atol=1e-4)


def found_of(sums: Tensor, log_norm: Tensor | None = None, log_proxy: Tensor | None = None) -> Gradients:
    """Groups of two, one right and one wrong, with these sums."""
    n = len(sums)
    norm = sums.double().square().sum(1).log() if log_norm is None else log_norm
    return Gradients(
        sums=list(sums),
        sum_of=torch.arange(n),
        reward=torch.tensor([1.0, 0.0]).double().repeat(n // 2),
        group=torch.arange(n) // 2,
        log_norm=norm,
        log_proxy=norm if log_proxy is None else log_proxy,
        log_weight=torch.zeros(n).double(),
    )


def drawn(groups: int, seed: int = 0, parameters: int = 7) -> Gradients:
    random = torch.Generator().manual_seed(seed)
    return found_of(torch.randn(2 * groups, parameters, generator=random) + torch.arange(parameters) / 5)


def compared(found: Gradients, one: Tensor, other: Tensor) -> Any:
    every = products(found.sums)
    counts = resamplings(len(one), torch.Generator().manual_seed(0))
    return compare(one @ every @ one.t(), other @ every @ other.t(), one @ every @ other.t(), counts)


@given(st.integers(2, 30), st.integers(0, 1000))
def test_variance_and_resampled_variance_are_those_of_the_gradients(groups: int, seed: int) -> None:
    found = drawn(groups, seed)
    made = estimates(found)[YARDSTICK]
    x = made @ made.t()
    assert total_variance(x) == pytest.approx(float(made.var(0).sum()))
    counts = resamplings(groups, torch.Generator().manual_seed(seed))[:5]
    assert counts.sum(1).tolist() == [groups] * 5
    again = [float(made.repeat_interleave(c.long(), 0).var(0).sum()) for c in counts]
    assert resampled_variances(x, counts).tolist() == pytest.approx(again, abs=1e-9)


def test_products_in_pieces_are_products() -> None:
    sums = torch.randn(3, 150_000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(products(list(sums)), sums.double() @ sums.double().t(), rtol=1e-4)


def test_the_squared_mean_has_no_noise_in_it() -> None:
    values = [squared_mean(made @ made.t()) for seed in range(400) for made in [_noise(seed)]]
    assert abs(math.fsum(values) / 400 - 0.25) < 0.06  # with its noise it would be 0.75


def _noise(seed: int) -> Tensor:
    """Twenty estimates of (0.5, 0, ...) in ten dimensions, variance one in each."""
    made = torch.randn(20, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    made[:, 0] += 0.5
    return made


def test_a_comparison_is_that_of_the_gradients() -> None:
    found = drawn(50)
    counted = {name: coefficients(a, found) for name, a in advantages_of(found).items()}
    made = estimates(found)
    for name, one in counted.items():
        comparison = compared(found, one, counted[YARDSTICK])
        mean, other = made[name].mean(0), made[YARDSTICK].mean(0)
        expected = float(made[name].var(0).sum() / made[YARDSTICK].var(0).sum())
        assert comparison.variance_ratio == pytest.approx(expected, rel=1e-4)
        assert comparison.low <= comparison.variance_ratio <= comparison.high
        assert comparison.difference == pytest.approx(float((mean - other).norm() / other.norm()), rel=1e-3, abs=1e-3)
    x = made[YARDSTICK] @ made[YARDSTICK].t()
    halves = made[YARDSTICK][:25].mean(0) - made[YARDSTICK][25:].mean(0)
    assert halves_apart(x) == pytest.approx(float(halves.norm() / made[YARDSTICK].mean(0).norm()), rel=1e-4)


def test_an_estimator_that_is_only_longer_is_no_better() -> None:
    found = drawn(40)
    counted = coefficients(advantages_of(found)[YARDSTICK], found)
    longer = compared(found, counted * 3, counted)
    assert longer.variance_ratio == pytest.approx(9.0)
    assert (longer.low, longer.high) == pytest.approx((9.0, 9.0))
    assert longer.length == pytest.approx(3.0)
    assert longer.variance_ratio_at_equal_length == pytest.approx(1.0)
    assert longer.difference == pytest.approx(2.0)
    assert longer.cosine == pytest.approx(1.0)


def test_without_a_true_difference_the_means_differ_by_what_chance_makes_of_them() -> None:
    """(1 - b) r - b w with E r = E w is the same for every b in expectation when w enters as its negative."""
    random = torch.Generator().manual_seed(0)
    score = torch.randn(800, 5, generator=random)  # expectation 0, as of a score
    found = found_of(score)
    one, other = (coefficients(torch.tensor([1 - b, -b]).double().repeat(400), found) for b in (0.2, 0.5))
    comparison = compared(found, one, other)
    assert 0.5 < comparison.difference / comparison.difference_by_chance < 2


def test_leave_one_out_is_the_group_mean_n_over_n_less_one_times() -> None:
    found = collect(engine(), groups(MIXED), 0, config("reinforce"), gradient)
    made = estimates(found)
    assert torch.allclose(made["leave one out"], made[YARDSTICK] * 1.5, atol=1e-6)


def test_minimum_variance_has_the_least_squared_norms_when_gradients_are_perpendicular() -> None:
    sums = torch.eye(6) * torch.tensor([1.0, 3.0, 2.0, 0.5, 1.0, 1.0])[:, None]
    found = found_of(sums)
    squares = {name: made.square().sum(1) for name, made in estimates(found).items()}
    for name in (YARDSTICK, "leave one out", "none"):
        assert (squares["minimum variance, exact"] <= squares[name] + 1e-9).all()
    # b = 9 / 10 x 0 + 1 / 10 x 1: (0.9)^2 1 + (0.1)^2 9
    assert float(squares["minimum variance, exact"][0]) == pytest.approx(0.9)


def test_mean_baselines_and_norms_are_those_of_groups_whose_rewards_differ() -> None:
    found = collect(engine(), groups([MIXED[0], *EQUAL, MIXED[1]]), 0, config("reinforce"), gradient)
    baselines = mean_baselines(advantages_of(found), found)
    assert baselines["none"] == 0
    assert baselines[YARDSTICK] == pytest.approx(0.5)  # of 1/3 and 2/3
    one = found_of(torch.eye(4) * torch.tensor([1.0, 3.0, 2.0, 1.0])[:, None])
    assert mean_baselines(advantages_of(one), one)["minimum variance, exact"] == pytest.approx((0.1 + 0.8) / 2)
    assert right_to_wrong(one) == pytest.approx((1 + 4) / (9 + 1))


def test_agreement_knows_a_group_from_its_members() -> None:
    """A proxy that knows groups apart and nothing within them, and one that is exact but for a factor of each group."""
    random = torch.Generator().manual_seed(0)
    level, own = torch.randn(200, generator=random).double().repeat_interleave(2), torch.randn(400, generator=random)
    exact = level * 3 + own.double()
    apart = agreement(found_of(torch.ones(400, 1), exact, level * 3 + torch.randn(400, generator=random).double()))
    assert apart.pearson > 0.8
    assert abs(apart.within_group) < 0.2
    within = agreement(found_of(torch.ones(400, 1), exact, own.double()))
    assert within.within_group == pytest.approx(1.0)
    assert within.pearson < 0.6
    assert agreement(found_of(torch.ones(400, 1), exact, exact.exp())).spearman == pytest.approx(1.0)


def test_the_table_has_a_line_a_kind_and_means_over_seeds() -> None:
    found = drawn(20)
    counted = {name: coefficients(a, found) for name, a in advantages_of(found).items()}
    row: dict[str, Any] = {
        "task": "chain", "method": "reinforce", "learning_rate": 1e-3, "steps": 64, "lag": 16, "parameters": 330_000,
        "pass_rate": 0.5, "mixed_groups": 0.75, "ess_ratio": 0.5, "halves_apart": 0.5,
        "right_to_wrong_norm": 0.1, "groups": 20,
        "agreement": dataclasses.asdict(agreement(found)),
        "baselines": {name: dataclasses.asdict(compared(found, own, counted[YARDSTICK])) for name, own in counted.items()},
    }  # fmt: skip
    row["baselines"]["none"] |= {"variance_ratio": 2.0, "low": 1.5, "high": 2.5}
    other = {**row, "baselines": {**row["baselines"], "none": {**row["baselines"]["none"], "variance_ratio": 3.0}}}
    norms, variance = (block.split("\n")[2:] for block in tables([row, other]).split("\n\n"))
    assert len(norms) == len(variance) == 1
    assert norms[0].startswith("| chain, reinforce, 0.33 M | 16 | 2 x 20 | 0.50 |")
    assert variance[0].startswith("| chain, reinforce, 0.33 M | 16 | 2.50 [1.50, 2.50] | 4.00 [4.00, 4.00] |")
