"""A step's figures reach steps.jsonl, TensorBoard and the metrics; counts go on where the start before ended."""

import base64
import dataclasses
import time
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from learner.batch.sift import sift, tally
from learner.batch.step_batch import assemble
from learner.intake.collector import Sampled
from learner.ranks import TakenStep
from learner.records import NOTHING_COUNTED, Records, scalars
from learner.source_figures import source_figures
from learner.step.report import StepReport, report
from services.config.learner import LearnerConfig
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.wire.codec import decode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup
from tests.learner.tiny import scored_group

GROUPS = [scored_group(i, rewards=[1.0, 0.0, 0.0], finish=["stop", "stop", "length"]) for i in range(2)]
SETTINGS = LearnerConfig.model_validate({"steps": 1, "groups_per_step": 2, "truncated": "mask"})


def record(records: Records, step: int, taken: StepReport) -> None:
    records.step(
        step,
        TakenStep(taken, {0: taken.tokens}),
        groups=GROUPS,
        counts={"trained": 2},
        reference_version=1,
        lag_window=2,
        waited_s=0.5,
        seconds=0.25,
    )


@pytest.fixture
def taken() -> StepReport:
    return report(assemble(GROUPS, 0, SETTINGS), None, loss=0.5, ess_ratio=0.75)


def test_every_figure_of_a_step_is_in_its_row(tmp_path: Path, taken: StepReport) -> None:
    records = Records(RunFolder(tmp_path), Sampled(), NOTHING_COUNTED, attempt=3, policy_version=0)
    record(records, 7, taken)
    records.close()
    (row,) = read_json_lines(RunFolder(tmp_path).steps)
    assert {field.name for field in dataclasses.fields(StepReport)} <= set(row)
    assert (row["step"], row["attempt"], row["consumed_groups"], row["groups"]) == (7, 3, [0, 1], {"trained": 2})
    assert row["dropped_sequences"] == {"truncated": 2}
    assert (row["trained_tokens"], row["seconds"], row["lag_window"]) == (taken.tokens, 0.25, 2)


def test_a_dead_group_is_written_down_with_what_sends_it_round_again(tmp_path: Path) -> None:
    records = Records(RunFolder(tmp_path), Sampled(), NOTHING_COUNTED, attempt=1, policy_version=0)
    sent = GROUPS[1].group.prompt
    records.death(DeadGroup(prompt=sent, group_id="train-1", stage="trajectories", cause="worn out", payload=b""))
    records.death(DeadGroup(prompt=None, group_id="1-0", stage="scored", cause="damaged", payload=b"x"))
    records.close()
    first, second = read_json_lines(RunFolder(tmp_path).dead)
    assert (first["group_id"], first["cause"], first["row"], first["purpose"]) == ("train-1", "worn out", 1, "train")
    assert decode(base64.b64decode(first["prompt"]), Prompt) == sent
    assert second["prompt"] is None


def test_the_numbers_of_a_step_are_scalars_of_tensorboard_and_metrics(tmp_path: Path, taken: StepReport) -> None:
    records = Records(RunFolder(tmp_path), Sampled(), NOTHING_COUNTED, attempt=1, policy_version=0)
    record(records, 7, taken)
    records.close()
    events = EventAccumulator(str(RunFolder(tmp_path).tensorboard)).Reload()
    assert {"step/loss", "step/ess_ratio", "step/masked_tokens", "step/dropped_sequences/truncated"} <= set(
        events.Tags()["scalars"]
    )
    (loss,) = events.Scalars("step/loss")
    assert (loss.step, loss.value) == (7, 0.5)
    assert REGISTRY.get_sample_value("ratchet_learner_ess_ratio") == 0.75
    assert REGISTRY.get_sample_value("ratchet_learner_reference_version") == 1


def test_tensorboard_forgets_the_steps_that_a_resumed_run_takes_again(
    tmp_path: Path, taken: StepReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt, first, losses in ((1, 1, [1.0, 2.0, 3.0, 4.0]), (2, 3, [30.0])):  # from the checkpoint after step 2
        # Events are read in the order of their files, which are named by the second.
        monkeypatch.setattr(time, "time", lambda second=attempt: 1_800_000_000.0 + second)
        records = Records(RunFolder(tmp_path), Sampled(), NOTHING_COUNTED, attempt, policy_version=first - 1)
        for step, loss in enumerate(losses, start=first):
            record(records, step, dataclasses.replace(taken, loss=loss))
        records.close()
    events = EventAccumulator(str(RunFolder(tmp_path).tensorboard)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("step/loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_tokens_of_a_step_that_was_skipped_are_not_trained_on(tmp_path: Path, taken: StepReport) -> None:
    records = Records(RunFolder(tmp_path), Sampled(), NOTHING_COUNTED, attempt=1, policy_version=0)
    record(records, 1, dataclasses.replace(taken, skipped="non_finite_loss"))
    assert records.counts()["trained_tokens"] == 0
    record(records, 2, taken)
    assert records.counts()["trained_tokens"] == taken.tokens
    records.close()


def test_counts_go_on_where_the_start_before_ended(tmp_path: Path, taken: StepReport) -> None:
    sampled = Sampled()
    counts = {"sampled_tokens": 11, "sampled_trajectories": 5, "trained_tokens": 9, "wall_seconds": 60.0}
    records = Records(RunFolder(tmp_path), sampled, counts, attempt=2, policy_version=0)
    assert records.counts() == counts
    sampled.tokens += 4
    records.begin()
    record(records, 1, taken)
    later = records.counts()
    records.close()
    assert (later["sampled_tokens"], later["trained_tokens"]) == (15, 9 + taken.tokens)
    assert later["wall_seconds"] >= 60.0


def test_only_named_mappings_have_scalars() -> None:
    row = {"loss": 1.0, "skipped": None, "lag_tokens": {0: 3}, "dropped_groups": {"stale": 2}}
    assert dict(scalars(row)) == {"loss": 1.0, "dropped_groups/stale": 2}


def test_figures_of_each_source_are_in_the_row_and_in_the_metrics() -> None:
    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(f"ratchet_learner_source_{name}", labels)

    by_source = {"hard": tally(GROUPS, [sift(group, 0, SETTINGS) for group in GROUPS])}
    found = source_figures(by_source, {"hard": 0.75, "quiet": 0.25})
    assert source_figures({}, {"": 1.0}) == {}
    assert found["hard"]["groups"] == len(GROUPS)
    assert found["quiet"]["groups"] == found["quiet"]["tokens"] == 0
    tokens = sum(len(one) for group in GROUPS for one in group.group.trajectories)
    assert found["hard"]["tokens"] == value("sampled_tokens_total", source="hard") == tokens
    assert value("share_ratio", source="quiet") == 0.25
    assert value("reward_mean", source="hard") == pytest.approx(found["hard"]["mean_reward"])
    assert value("reward_mean", source="quiet") is None
    names = dict(scalars({"sources": found}))
    assert names["sources/hard/pass_rate"] == found["hard"]["pass_rate"]
