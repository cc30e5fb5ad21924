"""A figure of a step is declared once: it has a default, merges over optimizer steps, and sets its metric."""

import dataclasses
import math

import pytest
from prometheus_client import REGISTRY

from learner.batch.step_batch import assemble
from learner.step.figure import gauge
from learner.step.report import FIGURES, StepReport, export, merged, report
from services.config.learner import LearnerConfig
from tests.learner.tiny import scored_group

SETTINGS = LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1, "max_lag": 2, "stale_tokens": "mask"})


def made(skipped: str | None = None, **measured: float | None) -> StepReport:
    groups = [scored_group(0, rewards=[1.0, 0.0]), scored_group(1, rewards=[1.0, 1.0])]
    return report(assemble(groups, 1, SETTINGS), skipped, **measured)  # type: ignore[arg-type]


def test_a_gauge_says_nothing_before_the_first_step() -> None:
    """0 would be an entropy that has collapsed, and an ESS ratio that raises an alert."""
    figure = gauge("tests_entropy_nats", "Entropy in nats.")
    assert math.isnan(REGISTRY.get_sample_value("tests_entropy_nats") or 0.0)
    figure.export(0.5)
    assert REGISTRY.get_sample_value("tests_entropy_nats") == 0.5


def sample(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(f"ratchet_learner_{name}", labels)
    return 0.0 if value is None else value


def test_every_field_says_what_becomes_of_it() -> None:
    assert list(FIGURES) == [field.name for field in dataclasses.fields(StepReport)]


def test_figures_that_a_step_did_not_reach_are_not_numbers_or_not_known() -> None:
    nothing = made("empty")
    assert all(math.isnan(x) for x in (nothing.loss, nothing.ess_ratio, nothing.learning_rate, nothing.entropy))
    assert nothing.engine_mismatch_kl is None
    assert nothing.missing_reference_tokens == 0
    assert (nothing.optimizer_steps, nothing.skipped_optimizer_steps) == (0, 1)


def test_a_report_says_what_was_gathered_and_dropped() -> None:
    seen = made()
    assert (seen.gathered_groups, seen.gathered_sequences, seen.sequences) == (2, 4, 2)
    assert (seen.dropped_groups, seen.dropped_sequences) == ({"zero_variance": 1}, {})
    assert (seen.zero_variance_fraction, seen.pass_rate, seen.mean_grading_s) == (0.5, 0.75, 0.0)


def test_one_report_is_merged_to_itself() -> None:
    alone = made(loss=1.0)
    assert merged([alone]) is alone


def test_means_are_over_the_steps_that_were_applied_and_know_the_figure() -> None:
    together = merged(
        [
            made(loss=1.0, before_batch_kl=0.5, ess_ratio=0.8),
            made(loss=3.0, ess_ratio=0.4),
            made("non_finite_loss", loss=math.nan, before_batch_kl=9.0),
        ]
    )
    assert (together.skipped, together.loss, together.before_batch_kl) == (None, 2.0, 0.5)
    assert together.ess_ratio == pytest.approx(0.6)
    assert (together.sequences, together.gathered_sequences) == (6, 4)
    assert (together.optimizer_steps, together.skipped_optimizer_steps) == (2, 1)
    assert merged([made(), made()]).within_batch_kl is None


def test_one_optimizer_step_of_several_that_is_skipped_is_counted_and_not_averaged_away() -> None:
    whole, lost = made(ess_ratio=0.8, loss=1.0), made("non_finite_ess", loss=math.nan)
    together = merged([whole, lost, whole, whole])
    assert (together.skipped, together.optimizer_steps, together.skipped_optimizer_steps) == (None, 3, 1)
    assert together.ess_ratio == pytest.approx(0.6)
    assert together.loss == 1.0
    nothing = merged([lost, lost])
    assert (nothing.skipped, nothing.skipped_optimizer_steps) == ("non_finite_ess", 2)


def test_every_figure_sets_its_metric() -> None:
    masked, optimizer_steps = sample("masked_tokens_total"), sample("skipped_optimizer_steps_total")
    skips = sample("skipped_steps_total", reason="non_finite_loss")
    stale = sample("dropped_sequences_total", reason="stale")
    seen = dataclasses.replace(
        made("non_finite_loss", entropy=2.0, one_way_low_positive=0.25, engine_mismatch_kl=None, loss=1.5),
        masked_tokens=3,
        dropped_sequences={"stale": 2},
    )
    export(seen)
    assert (sample("entropy_nats"), sample("loss")) == (2.0, 1.5)
    assert sample("one_way_bound_ratio", bound="low", advantage="positive") == 0.25
    assert math.isnan(sample("mismatch_part_nats", part="engine_mismatch"))
    assert sample("skipped_steps_total", reason="non_finite_loss") == skips + 1
    assert sample("dropped_sequences_total", reason="stale") == stale + 2
    assert sample("masked_tokens_total") == masked + 3
    assert sample("skipped_optimizer_steps_total") == optimizer_steps + 1
