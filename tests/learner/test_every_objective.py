"""Whole learner steps under every objective: what is cut up, masked or spread over ranks gives the same step."""

import math
from functools import cache
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.batch.step_batch import assemble
from learner.engine.protocol import TokenStatistics
from learner.step.learner_step import learner_step
from learner.step.report import StepReport
from services.config.learner import LearnerConfig
from services.config.objectives.registry import OURS
from services.wire.score import ScoredGroup
from tests.fakes.ranks import on_ranks
from tests.fakes.train_engine import BigramEngine
from tests.learner.every_objective import VARIANTS, settings
from tests.learner.tiny import scored_group

EVERY = pytest.mark.parametrize("variant", VARIANTS)
MASKED = 9
"""A token that occurs only at places that do not count."""


def groups(masked_logp: float | None = None) -> list[ScoredGroup]:
    """Six groups of three, some tokens two versions old. masked_logp: one more token at the end of some, older still."""
    made = []
    for i in range(6):
        drawn = scored_group(i, rewards=[1.0, 0.0, 0.25])
        responses = [[t % MASKED for t in x.token_ids.numpy().tolist()] for x in drawn.group.trajectories]
        versions = [[(1, 1), (3, len(r) - 1)] if len(r) > 1 else [(3, 1)] for r in responses]
        logp = [x.behavior_logp.numpy().tolist() for x in drawn.group.trajectories]
        if masked_logp is not None:
            responses[i % 3].insert(0, MASKED)
            logp[i % 3].insert(0, masked_logp)
            versions[i % 3].insert(0, (0, 1))
        prompt = [t % MASKED for t in drawn.group.prompt.token_ids.numpy().tolist()]
        made.append(
            scored_group(
                i, rewards=[1.0, 0.0, 0.25], prompt=prompt, responses=responses, versions=versions, behavior_logp=logp
            )
        )
    return made


def prepare(engine: BigramEngine) -> BigramEngine:
    """A reference that has fallen behind, and two teachers."""
    random = torch.Generator().manual_seed(7)
    tables = [engine.logits + torch.randn(engine.logits.shape, generator=random) * 0.5 for _ in range(3)]
    engine.reference = tables[0]
    engine.reference_is_current = False
    engine.teachers = tables[1:]
    return engine


def step(engine: BigramEngine, config: LearnerConfig, scored: list[ScoredGroup]) -> StepReport:
    """At a rate at which a second optimizer step finds ratios beyond every clip."""
    return learner_step(engine, assemble(scored, 4, config), config, learning_rate=20.0)


def moved(config: LearnerConfig, scored: list[ScoredGroup]) -> Tensor:
    engine = prepare(BigramEngine())
    assert step(engine, config, scored).skipped is None
    return engine.logits - BigramEngine().logits


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@cache
def one_by_one(variant: str) -> Tensor:
    """What a step changes that is cut up as far as it can be."""
    return moved(settings(variant, mini_batches=2, row_tokens=11, rows_per_micro_batch=1), groups())


@EVERY
@hypothesis.settings(max_examples=6)
@given(row_tokens=st.integers(11, 60), rows=st.integers(1, 20))
def test_rows_and_micro_batches_do_not_change_the_step(variant: str, row_tokens: int, rows: int) -> None:
    expected = one_by_one(variant)
    got = moved(settings(variant, mini_batches=2, row_tokens=row_tokens, rows_per_micro_batch=rows), groups())
    assert expected.norm() > 1e-3
    assert gap(got, expected) < 1e-5


@EVERY
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_do_not_change_the_step_and_agree_on_it(variant: str, ranks: int) -> None:
    config = settings(variant, mini_batches=2)
    alone = prepare(BigramEngine())
    report = step(alone, config, groups())

    def work(engine: BigramEngine) -> tuple[StepReport, Tensor, Tensor, list[float]]:
        prepare(engine)
        return step(engine, config, groups()), engine.logits, engine.reference, engine.learning_rates

    together = on_ranks(ranks, work)
    for seen, logits, reference, rates in together:
        assert gap(logits - BigramEngine().logits, alone.logits - BigramEngine().logits) < 1e-5
        assert torch.allclose(reference, alone.reference, atol=1e-6)
        assert seen == together[0][0]
        assert rates == together[0][3]
        assert (seen.loss, seen.ess_ratio) == pytest.approx((report.loss, report.ess_ratio), rel=1e-4, abs=1e-6)


class GarbledEngine(BigramEngine):
    """An engine whose policies all give `garbage` as the log-prob of the masked token."""

    garbage = 0.0

    def _forward(self, micro_batch: MicroBatch, table: Tensor) -> TokenStatistics:
        clean = super()._forward(micro_batch, table)
        masked = micro_batch.target_ids == MASKED
        return TokenStatistics(
            logp=torch.where(masked, self.garbage, clean.logp),
            entropy=torch.where(masked, self.garbage, clean.entropy),
            residual=torch.where(masked, self.garbage, clean.residual),
            hidden=clean.hidden,
            predicted=clean.predicted,
        )


@EVERY
def test_garbage_at_masked_tokens_changes_nothing(variant: str) -> None:
    """Said by the behavior policy, by the learner's policies, or by both."""
    config = settings(variant, stale_tokens="mask", max_lag=3, mini_batches=2)

    def moved_with(masked_logp: float, garbage: float) -> Tensor:
        engine = prepare(GarbledEngine())
        engine.garbage = garbage  # type: ignore[attr-defined]
        report = step(engine, config, groups(masked_logp))
        assert report.skipped is None
        assert all(math.isfinite(x) for x in (report.loss, report.entropy, report.mismatch_kl, report.reference_gap))
        return engine.logits - BigramEngine().logits

    expected = moved_with(-1.0, -1.0)
    assert expected.norm() > 1e-3
    for garbage in (math.nan, math.inf, -math.inf, 1e30):
        assert torch.equal(moved_with(garbage, -1.0), expected)
        assert torch.equal(moved_with(garbage, garbage), expected)


@EVERY
def test_several_optimizer_steps_count_and_report_as_one(variant: str) -> None:
    engine = prepare(BigramEngine())
    report = step(engine, settings(variant, mini_batches=3), groups())
    assert (report.skipped, report.optimizer_steps, len(engine.learning_rates)) == (None, 3, 3)
    once = step(prepare(BigramEngine()), settings(variant), groups())
    assert (report.sequences, report.tokens) == (once.sequences, once.tokens)


@EVERY
def test_more_mini_batches_than_groups_are_one_a_group(variant: str) -> None:
    assert step(prepare(BigramEngine()), settings(variant, mini_batches=99), groups()).optimizer_steps == 6


@EVERY
def test_every_diagnostic_is_a_fraction_under_every_objective(variant: str) -> None:
    report = step(prepare(BigramEngine()), settings(variant, mini_batches=2), groups())
    weighs_itself = OURS[str(VARIANTS[variant]["type"])].numerator == "none"
    assert (report.truncated_fraction is None) == (report.mean_importance_ratio is None) == weighs_itself
    assert report.truncated_fraction is None or 0 <= report.truncated_fraction <= 1
    for name in ("clipped", "sign_flipped", "distillation_flips", "zero_variance"):
        assert 0 <= getattr(report, f"{name}_fraction") <= 1
    for bound in ("low_positive", "low_negative", "high_positive", "high_negative"):
        assert 0 <= getattr(report, f"one_way_{bound}") <= 1
    assert report.ess_ratio <= report.truncated_ess_ratio * (1 + 1e-9) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("objective", "given", "low", "high"),
    [
        ("cispo", {"high": 0.28}, 1.0, 0.28),
        ("gspo", {"low": 2e-4}, 2e-4, 4e-4),
        ("gspo", {"high": 5e-4}, 3e-4, 5e-4),
        ("grpo", {"low": 0.1}, 0.1, 0.2),
        ("dapo", {"low": 0.1}, 0.1, 0.28),
    ],
)
def test_one_bound_of_a_clip_leaves_the_other_as_the_objective_has_it(
    objective: str, given: dict[str, float], low: float, high: float
) -> None:
    with_clip: Any = settings(objective, objective={"type": objective, "clip": given}).objective
    clip = with_clip.clip
    assert (clip.low, clip.high) == (low, high)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"objective": {"type": "mc_grpo"}, "advantage": {"baseline": "mean"}}, 'baseline = "median", not "mean"'),
        ({"objective": {"type": "popo"}, "advantage": {"baseline": "minimum_variance"}}, 'baseline = "positives"'),
        (
            {"objective": {"type": "opmd", "tau": 0.5}, "advantage": {"baseline": "log_mean_exp"}},
            "learner.objective.tau = 0.5 and learner.advantage.tau = 1.0 differ",
        ),
        ({"objective": {"type": "mopd"}, "teachers": [{"path": "t"}] * 65}, "takes 2 to 64"),
    ],
)
def test_settings_that_make_another_method_of_it_are_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        settings("owpo", **changes)


def test_grpo_is_the_published_one_and_popo_keeps_groups_without_variance() -> None:
    grpo, popo = settings("grpo"), settings("popo")
    assert (grpo.advantage.baseline, grpo.advantage.normalize, grpo.ess.enabled) == ("mean", "sample_std", False)
    assert popo.zero_variance == "train"
