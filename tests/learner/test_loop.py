"""A run from its first step to its last: in order, stopped and resumed, and with what goes wrong on the way."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from learner.checkpoint import Checkpoints
from learner.engine.protocol import GradientStep
from learner.loop import Beginning
from services.errors import DeadlineExceeded, InputError, RatchetError, WeightSyncError
from services.run.best_checkpoint import best_checkpoints
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.wire.prompt import Prompt, trace
from tests.fakes.train_engine import BigramEngine
from tests.learner.small_run import SmallRun, Start, one_of_two

BUSY = "ratchet_busy_seconds_total", {"room": "learner"}
MakeRun = Callable[..., SmallRun]


@pytest.fixture
def run(small_run: MakeRun) -> SmallRun:
    return small_run()


def rows(run: SmallRun) -> list[dict[str, Any]]:
    return read_json_lines(RunFolder(run.config.folder).steps)


def checkpoints(run: SmallRun) -> list[str]:
    return sorted(path.name for path in RunFolder(run.config.folder).checkpoints.glob("*"))


def left_on(start: Start) -> int:
    depth = start.scored.depth()
    return depth.waiting + depth.pending


def test_every_version_is_published_and_every_group_trained_on_once(run: SmallRun) -> None:
    start = run.start()
    assert start.run()
    assert [snapshot.policy_version for snapshot in run.replicas.published] == [0, 1, 2, 3, 4]
    assert [row["consumed_groups"] for row in rows(run)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert start.intake.counts()["trained"] == 8
    assert RunFolder(run.config.folder).export.is_dir()


def test_the_learner_says_how_far_it_is_and_since_when(run: SmallRun) -> None:
    def sample(name: str) -> float:
        value = REGISTRY.get_sample_value(f"ratchet_learner_{name}")
        assert value is not None
        return value

    lags, busy_s = sample("policy_lag_steps_count"), REGISTRY.get_sample_value(*BUSY) or 0.0
    begun_s = time.time()
    assert run.start().run()
    assert (sample("policy_version"), sample("planned_steps"), sample("checkpoint_version")) == (4, 4, 4)
    assert sample("max_lag_steps") == 1
    assert begun_s <= sample("last_step_timestamp_seconds") <= sample("checkpoint_timestamp_seconds") <= time.time()
    tokens = sum(row["tokens"] for row in rows(run))
    assert sample("policy_lag_steps_count") - lags == tokens > 0
    assert 0 < (REGISTRY.get_sample_value(*BUSY) or 0.0) - busy_s <= time.time() - begun_s + 0.1


def test_prompts_are_issued_as_far_ahead_as_max_lag_allows_and_no_further(run: SmallRun) -> None:
    start = run.start(stop_after=1)
    start.run()
    assert len(run.rooms.prompts) == 0  # asked to stop before the first turn
    start = run.start(stop_after=2)
    start.run()
    # Two groups a step, one step ahead: four before the first step, and none after it, because of the stop.
    assert [prompt.sequence_number for prompt in run.rooms.prompts] == [0, 1, 2, 3]


def test_a_checkpoint_and_an_evaluation_every_two_steps_and_at_the_end(run: SmallRun) -> None:
    run.start().run()
    assert checkpoints(run) == ["step-00000002", "step-00000004"]
    evaluations = read_json_lines(RunFolder(run.config.folder).evaluations)
    assert [row["policy_version"] for row in evaluations] == [0, 2, 4]
    assert [row["avg_at_k"] for row in evaluations] == [0.5] * 3


def test_a_run_that_was_stopped_goes_on_where_it_was(run: SmallRun) -> None:
    first = run.start(stop_after=3)
    assert not first.run()
    assert checkpoints(run) == ["step-00000002"]
    assert left_on(first) == 2  # issued ahead, and not trained on
    second = run.start()
    assert second.run()
    assert [row["step"] for row in rows(run)] == [1, 2, 3, 4]
    assert [number for row in rows(run) for number in row["consumed_groups"]] == list(range(8))
    assert second.intake.counts()["trained"] == 8


def test_a_run_that_was_made_of_something_else_does_not_go_on(run: SmallRun) -> None:
    first = run.start(stop_after=3)
    first.state.made_of = {"seed": {"is": "0", "digest": "0"}}
    first.run()
    now = {"seed": {"is": "7", "digest": "7"}}
    with pytest.raises(
        InputError, match=r"step-00000002 is of a run that was made of something else:\n  seed: was 0, is now 7"
    ):
        Beginning.of(run.config, now)
    accepting = run.config.learner.checkpoint.model_copy(update={"accept_changed": ("seed",)})
    learner = run.config.learner.model_copy(update={"checkpoint": accepting})
    again = Beginning.of(run.config.model_copy(update={"learner": learner}), now)
    assert (again.state.policy_version, again.state.made_of) == (2, now)


def test_groups_are_acknowledged_with_the_checkpoint_that_holds_them(run: SmallRun) -> None:
    """What a crash takes back comes again."""
    start = run.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "commit", full_disk)
        with pytest.raises(OSError, match="no space"):
            start.run()
    evaluated = sum(len(rooms.prompts) for rooms in run.evaluation_rooms)
    assert left_on(start) == len(run.rooms.prompts) + evaluated
    again = run.start()
    assert again.run()
    assert [row["consumed_groups"] for row in rows(run)][-4:] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(run: SmallRun) -> None:
    """It had acknowledged groups 4 to 7, which are on no stream any more; 8 and 9 were issued ahead and are."""
    assert run.start().run()
    folder = RunFolder(run.config.folder).checkpoints
    (folder / "step-00000004" / "bigram.json").write_text("{")
    again = run.start()
    assert again.beginning.state.policy_version == 2
    run.replicas.holds = 2
    again.issue_lost()
    run.replicas.holds = None
    assert again.run()
    assert [row["consumed_groups"] for row in rows(run)][4:] == [[8, 9], [4, 5]]
    left = [trace(payload) for payload in again.scored.peek(99)]
    assert {6, 7} <= {prompt.sequence_number for prompt in left if prompt is not None}
    assert again.intake.counts()["trained"] == 8
    assert checkpoints(run) == ["step-00000002", "step-00000004"]  # the new one; the damaged one is gone
    assert run.start().beginning.state.policy_version == 4


def test_steps_go_on_while_a_checkpoint_is_written_and_its_groups_stay_claimed_until_it_is_complete(
    small_run: MakeRun,
) -> None:
    run = small_run("evaluation.every_steps=99")
    start = run.start()
    start.engine.disk_is_slow = True
    taken: list[tuple[int, list[str], int]] = []
    before = start.records.step

    def step(number: int, *arguments: Any, **options: Any) -> None:
        before(number, *arguments, **options)
        taken.append((number, checkpoints(run), left_on(start)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start.records, "step", step)
        assert start.run()
    writing = [".writing-00000002"]
    assert [names for _, names, _ in taken] == [[], [], writing, writing]
    # All that were issued, as nothing was acknowledged before a checkpoint was complete; evaluations among them.
    assert [claimed for _, _, claimed in taken] == [6, 8, 10, 12]
    assert checkpoints(run) == ["step-00000002", "step-00000004"]
    assert left_on(start) == 2  # issued ahead, and not trained on


def test_a_checkpoint_that_was_being_written_is_completed_when_the_run_is_stopped(run: SmallRun) -> None:
    start = run.start(stop_after=3)
    start.engine.disk_is_slow = True
    assert not start.run()
    assert checkpoints(run) == ["step-00000002"]
    assert left_on(start) == 2


def test_a_checkpoint_that_was_being_written_is_completed_when_the_run_ends_by_an_error(small_run: MakeRun) -> None:
    run = small_run(
        "deadlines.groups_s=0.2",
        rewards=lambda prompt: None if prompt.sequence_number > 3 and prompt.purpose == "train" else one_of_two(prompt),
    )
    start = run.start()
    start.engine.disk_is_slow = True
    with pytest.raises(DeadlineExceeded):
        start.run()
    assert checkpoints(run) == ["step-00000002"]


@pytest.mark.parametrize("background", ["true", "false"])
def test_checkpoints_are_written_in_the_background_where_the_settings_say_so(
    small_run: MakeRun, background: str
) -> None:
    run = small_run("learner.checkpoint={every_steps = 2, keep = 9}", f"learner.checkpoint.background={background}")
    start = run.start()
    assert start.run()
    saved = [call for call in start.engine.calls if call.startswith("save")]
    assert saved[:2] == ["save in background" if background == "true" else "save"] * 2


def test_the_best_checkpoint_is_kept_besides_the_newest(small_run: MakeRun) -> None:
    """Three evaluations: 0.5, then 1, then 0.5."""

    found: list[SmallRun] = []

    def best_at_two(prompt: Prompt) -> list[float]:
        at_two = prompt.purpose == "evaluate" and found[0].replicas.confirmed_version == 2
        return [1.0, 1.0] if at_two else one_of_two(prompt)

    run = small_run(
        "learner.steps=8", "learner.checkpoint={every_steps = 2, keep = 1, keep_best = 1}", rewards=best_at_two
    )
    found.append(run)
    assert run.start().run()
    assert checkpoints(run) == ["step-00000002", "step-00000008"]
    best = best_checkpoints(RunFolder(run.config.folder), "avg_at_k")
    assert [(judged.checkpoint.name, judged.accuracy) for judged in best] == [
        ("step-00000002", 1.0),
        ("step-00000008", 0.5),
    ]


def full_disk(*arguments: object) -> None:
    raise OSError("no space left on device")


def test_dropped_groups_are_made_up_for(small_run: MakeRun) -> None:
    def every_third_is_easy(prompt: Prompt) -> list[float]:
        return [1.0, 1.0] if prompt.sequence_number % 3 == 0 else one_of_two(prompt)

    run = small_run(rewards=every_third_is_easy)
    start = run.start()
    assert start.run()
    counts = start.intake.counts()
    assert (counts["trained"], counts["dropped"]) == (8, {"zero_variance": 4})
    assert [row["consumed_groups"] for row in rows(run)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert [row["zero_variance_fraction"] for row in rows(run)] == pytest.approx([1 / 3] * 4)


def test_prompts_are_issued_and_groups_gathered_while_a_step_is_computed(small_run: MakeRun) -> None:
    """One group in three is usable. Six are gathered for the first step and eight issued; what comes ahead and is dropped frees
    four more credits, which the step waits for."""

    def one_in_three(prompt: Prompt) -> list[float]:
        return one_of_two(prompt) if prompt.sequence_number % 3 == 2 or prompt.purpose == "evaluate" else [1.0, 1.0]

    run = small_run(rewards=one_in_three)
    start = run.start()
    seen: list[int] = []
    before = start.engine.step

    def step(learning_rate: float) -> Any:
        end_s = time.monotonic() + 10.0
        while not seen and len(run.rooms.prompts) < 12 and time.monotonic() < end_s:
            time.sleep(0.002)
        seen.append(len(run.rooms.prompts))
        return before(learning_rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start.engine, "step", step)
        assert start.run()
    assert seen[0] == 12
    assert [row["consumed_groups"] for row in rows(run)] == [list(range(6 * at, 6 * at + 6)) for at in range(4)]
    assert start.intake.counts()["dropped"] == {"zero_variance": 16}


def test_no_thread_of_the_intake_is_left_when_the_run_has_ended(small_run: MakeRun) -> None:
    run = small_run("deadlines.groups_s=0.2")
    run.start().run()
    run.rewards = lambda prompt: None
    run.start(stop_after=1).run()
    assert "intake" not in {thread.name for thread in threading.enumerate()}


def test_the_reference_moves_when_it_is_due(run: SmallRun) -> None:
    start = run.start()
    start.run()
    assert [row["reference_version"] for row in rows(run)] == [0, 2, 2, 4]
    assert start.engine.reference.equal(start.engine.logits)


def test_groups_that_never_come_end_the_run_at_their_deadline(small_run: MakeRun) -> None:
    run = small_run(
        "deadlines.groups_s=0.2",
        rewards=lambda prompt: one_of_two(prompt) if prompt.purpose == "evaluate" else None,
    )
    with pytest.raises(DeadlineExceeded, match="scored groups"):
        run.start().run()


def test_weights_that_do_not_arrive_are_named_instead_of_groups_that_do_not_come(run: SmallRun) -> None:
    def nothing(prompt: Prompt) -> list[float] | None:
        if prompt.purpose == "evaluate":
            return one_of_two(prompt)
        run.replicas.fault = WeightSyncError("no replica has taken the weights")
        return None

    run.rewards = nothing
    with pytest.raises(WeightSyncError, match="no replica has taken the weights"):
        run.start().run()


class OverflowingEngine(BigramEngine):
    """Its weights stay as they are: no gradient is ever finite."""

    def step(self, learning_rate: float) -> GradientStep:
        self.gradient.fill_(float("inf"))
        return super().step(learning_rate)


def test_steps_that_change_nothing_end_the_run_with_what_to_do(small_run: MakeRun) -> None:
    start = small_run("learner.max_skipped_steps=2", engine=OverflowingEngine).start()
    with pytest.raises(RatchetError, match=r"2 steps in a row changed nothing.* policy version 1\. Lower"):
        start.run()
    assert start.intake.counts()["dropped"] == {"skipped_step": 4}


def test_an_engine_that_differs_is_warned_of_at_once_and_ends_the_run_when_it_lasts(
    small_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    """The log-probs that the rooms answer with are not the bigram engine's."""
    run = small_run("weights.mismatch_steps=2", "learner.max_lag=0")
    with pytest.raises(InputError, match=r"have other log-probs in the engine: KL .* \(2 of 2 steps in a row"):
        run.start().run()
    assert len(rows(run)) == 2
    assert "(1 of 2 steps in a row, weights.mismatch_steps)" in caplog.text


def test_weights_alone_can_be_evaluated(run: SmallRun) -> None:
    run.start(stop_after=3).run()
    issued = len(run.rooms.prompts)
    start = run.start()
    assert start.beginning.checkpoint is not None
    start.loop.load(start.beginning.checkpoint, weights_only=True)
    assert start.loop.evaluate_only()
    assert read_json_lines(RunFolder(run.config.folder).evaluations)[-1]["policy_version"] == 2
    assert len(run.rooms.prompts) == issued
    assert checkpoints(run) == ["step-00000002"]


def test_the_generation_of_the_weight_group_is_in_the_checkpoint(run: SmallRun) -> None:
    run.replicas.generation = 3
    assert not run.start(stop_after=3).run()
    assert run.start().beginning.state.pg_generation == 3
