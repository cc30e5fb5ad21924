"""Held-out accuracy: what counts, when it is due, and that two policies are asked the same."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from learner.evaluation import count, evaluation_prompts
from learner.intake.issuer import PromptSource
from services.errors import DeadlineExceeded
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from tests.learner.small_run import PROBLEMS, SmallRun, small_config, token_ids
from tests.learner.tiny import scored_group

MakeRun = Callable[..., SmallRun]


ASKED = [scored_group(index, rewards=[0.0]).group.prompt for index in range(3)]


def result(index: int, rewards: list[float], version: int = 7) -> ScoredGroup:
    return scored_group(
        index, rewards=rewards, versions=[[(version, 2)]] * len(rewards), responses=[[1, 2]] * len(rewards)
    )


def test_average_and_best_of_k() -> None:
    counted = count([result(0, [1.0, 0.0]), result(1, [0.0, 0.0]), result(2, [1.0, 1.0])], 7, ASKED, seconds=1.5)
    assert (counted.avg_at_k, counted.pass_at_k) == pytest.approx((0.5, 2 / 3))
    assert (counted.k, counted.prompts, counted.missing, counted.mean_tokens) == (2, 3, 0, 2.0)


def test_a_result_of_another_version_and_one_that_never_came_are_missing() -> None:
    counted = count([result(0, [1.0]), result(1, [0.0], version=6)], 7, ASKED, seconds=1.0)
    assert (counted.avg_at_k, counted.prompts, counted.missing) == (1.0, 1, 2)


def test_without_any_result_nothing_was_measured() -> None:
    counted = count([], 7, ASKED, seconds=1.0)
    assert (counted.k, counted.prompts, counted.missing) == (0, 0, 3)
    assert all(map(math.isnan, (counted.avg_at_k, counted.pass_at_k, counted.mean_tokens)))


def test_two_versions_are_asked_the_same_on_the_same_draws(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    assert config.evaluation is not None

    def prompts(version: int) -> list[Prompt]:
        assert config.evaluation is not None
        return evaluation_prompts(
            config, config.evaluation, [PromptSource(PROBLEMS, token_ids)], policy_version=version, attempt=1
        )

    first, second = prompts(3), prompts(4)
    assert not {prompt.group_id for prompt in first} & {prompt.group_id for prompt in second}
    nameless = [[msgspec.structs.replace(prompt, group_id="") for prompt in prompts] for prompts in (first, second)]
    assert nameless[0] == nameless[1]
    seeds = sorted(prompt.seed for prompt in first)
    k = config.evaluation.samples_per_prompt
    assert all(later - earlier >= k for earlier, later in itertools.pairwise(seeds))


def test_it_is_due_every_two_versions_once_and_at_the_end(small_run: MakeRun) -> None:
    evaluator = small_run().start().evaluator
    assert [version for version in range(6) if evaluator.is_due(version, None)] == [0, 2, 4]
    assert not evaluator.is_due(2, evaluated_version=2)
    assert evaluator.is_due(3, evaluated_version=2, last=True)
    assert not evaluator.is_due(3, evaluated_version=3, last=True)


def test_a_stop_ends_it_without_a_figure(small_run: MakeRun) -> None:
    run = small_run(rewards=lambda prompt: None)
    start = run.start()
    run.replicas.stopping = True
    assert start.evaluator.evaluate(0) is None


def test_results_that_never_come_end_it_at_its_deadline(small_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = small_run("deadlines.evaluation_s=0.1", rewards=lambda prompt: None)
    with pytest.raises(DeadlineExceeded, match="evaluation results"):
        run.start().evaluator.evaluate(0)
    assert "2 groups did not come back, first eval-1-0-0" in caplog.text


def test_each_source_has_figures_of_its_own_and_the_whole_is_over_all_prompts() -> None:
    def of(name: str, prompt: Prompt) -> Prompt:
        return msgspec.structs.replace(prompt, source=name)

    def from_source(name: str, index: int, rewards: list[float]) -> ScoredGroup:
        found = result(index, rewards)
        group = msgspec.structs.replace(found.group, prompt=of(name, found.group.prompt))
        return msgspec.structs.replace(found, group=group)

    asked = [of(name, prompt) for name, prompt in zip("aab", ASKED, strict=True)]
    counted = count([from_source("a", 0, [1.0, 0.0]), from_source("b", 2, [0.0, 0.0])], 7, asked, seconds=1.0)
    assert (counted.avg_at_k, counted.prompts, counted.missing) == (0.25, 2, 1)
    a, b = counted.sources["a"], counted.sources["b"]
    assert (a.avg_at_k, a.pass_at_k, a.prompts, a.missing) == (0.5, 1.0, 1, 1)
    assert (b.avg_at_k, b.pass_at_k, b.prompts, b.missing) == (0.0, 0.0, 1, 0)
    assert count([], 7, ASKED, seconds=1.0).sources == {}


def test_prompts_that_an_emptied_server_has_lost_are_issued_again(small_run: MakeRun) -> None:
    asked: list[int] = []

    def answer(prompt: Prompt) -> list[float] | None:
        asked.append(prompt.sequence_number)
        if len(asked) == 2:  # both are out, and none has been answered
            run.lose_evaluation = True
        return [1.0, 0.0] if len(asked) > 2 else None

    class Emptied(SmallRun):
        lose_evaluation = False

    run = Emptied(small_run().config, answer)
    start = run.start()
    seen = run.replicas.should_stop

    def should_stop() -> bool:
        if run.lose_evaluation:
            run.lose_evaluation = False
            run.evaluation_rooms[-1].empty()
        return seen()

    run.replicas.should_stop = should_stop  # type: ignore[method-assign]
    evaluation = start.evaluator.evaluate(0)
    run.close()
    assert evaluation is not None
    assert (evaluation.prompts, evaluation.missing) == (2, 0)
    assert asked == [0, 1, 0, 1]
