import math

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.batch.step_batch import StepBatch, assemble
from learner.engine.protocol import TrainEngine
from learner.step.learner_step import learner_step
from services.config.learner import LearnerConfig
from services.wire.score import ScoredGroup
from tests.fakes.train_engine import BigramEngine
from tests.learner.tiny import scored_group

GRPO = {"objective": {"type": "grpo"}, "advantage": {"baseline": "mean", "normalize": "none"}, "ess": {"enabled": True}}


def settings(**changes: object) -> LearnerConfig:
    base = {"steps": 10, "groups_per_step": 3, "row_tokens": 24, "rows_per_micro_batch": 2, "stale_tokens": "train"}
    return LearnerConfig.model_validate({**base, **changes})


def batch(config: LearnerConfig, groups: list[ScoredGroup] | None = None) -> StepBatch:
    return assemble(groups or [scored_group(i, rewards=[1.0, 0.0, 0.25]) for i in range(3)], 2, config)


def on_policy(engine: BigramEngine, group: ScoredGroup) -> ScoredGroup:
    """The same group as if the engine's own policy had sampled it."""
    prompt = group.group.prompt.token_ids.numpy().tolist()
    responses = [t.token_ids.numpy().tolist() for t in group.group.trajectories]
    return scored_group(
        group.group.prompt.row,
        rewards=[s.reward or 0.0 for s in group.scores],
        prompt=prompt,
        responses=responses,
        behavior_logp=[engine.sequence_logps([[*prompt, *r]])[0][len(prompt) - 1 :] for r in responses],
    )


def moved(config: LearnerConfig, groups: list[ScoredGroup] | None = None, steps: int = 2) -> torch.Tensor:
    engine = BigramEngine()
    for _ in range(steps):
        assert learner_step(engine, batch(config, groups), config, learning_rate=0.5).skipped is None
    return engine.logits - BigramEngine().logits


def test_the_fake_is_a_train_engine() -> None:
    engine: TrainEngine = BigramEngine()
    assert engine.world_size == 1


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean"])
@pytest.mark.parametrize("baseline", ["mean", "minimum_variance"])
@hypothesis.settings(max_examples=15)
@given(row_tokens=st.integers(11, 60), rows=st.integers(1, 9))
def test_rows_and_micro_batches_do_not_change_the_step(
    aggregation: str, baseline: str, row_tokens: int, rows: int
) -> None:
    same = {"aggregation": aggregation, "advantage": {"baseline": baseline}}
    expected = moved(settings(row_tokens=11, rows_per_micro_batch=1, **same))
    got = moved(settings(row_tokens=row_tokens, rows_per_micro_batch=rows, **same))
    assert float((got - expected).norm() / expected.norm()) < 1e-5


def test_on_policy_with_a_fresh_reference_owpo_is_plain_group_relative_policy_gradient() -> None:
    engine = BigramEngine()
    groups = [on_policy(engine, scored_group(i, rewards=[1.0, 0.0, 0.25])) for i in range(3)]
    config = settings(advantage={"baseline": "mean"})
    b = batch(config, groups)
    report = learner_step(engine, b, config, learning_rate=1.0)
    assert report.ess_ratio == pytest.approx(1.0)
    assert report.lr_factor == pytest.approx(1.0)
    assert (report.mismatch_kl, report.one_way_mean, report.reference_gap) == pytest.approx((0.0, 1.0, 0.0), abs=1e-6)
    table = BigramEngine().logits.requires_grad_()
    loss = torch.zeros(())
    for i, prompt in enumerate(b.prompt_ids):
        response = b.response_ids[b.cu_seqlens[i] : b.cu_seqlens[i + 1]]
        whole = torch.cat([prompt[-1:], response])
        advantage = b.reward[i] - b.reward[b.group == b.group[i]].mean()
        loss = loss - advantage.float() * table.log_softmax(-1)[whole[:-1], whole[1:]].mean() / len(b)
    loss.backward()
    assert table.grad is not None
    assert torch.allclose(engine.logits, BigramEngine().logits - table.grad, atol=1e-6)


def test_mismatch_of_the_engines_is_told_from_lag_and_from_steps_on_the_batch() -> None:
    engine = BigramEngine()
    fresh = [on_policy(engine, scored_group(i, rewards=[1.0, 0.0, 0.25])) for i in range(4)]
    config = settings(mini_batches=2, groups_per_step=4)
    report = learner_step(engine, assemble(fresh, 0, config), config, learning_rate=1.0)
    assert (report.engine_mismatch_kl, report.before_batch_kl) == pytest.approx((0.0, 0.0), abs=1e-9)
    assert report.within_batch_kl is not None
    assert report.within_batch_kl > 1e-5  # of the second step
    assert report.mismatch_kl == pytest.approx(report.within_batch_kl, rel=1e-4)

    # Weights from before: lag, and no token that could tell how much of it is the engines'.
    lagged = learner_step(engine, assemble(fresh, 3, settings()), settings(), learning_rate=1.0)
    assert lagged.engine_mismatch_kl is None
    assert lagged.before_batch_kl == lagged.mismatch_kl > 1e-5
    assert lagged.within_batch_kl == 0.0


def test_a_sequence_that_other_weights_had_a_part_in_says_nothing_of_the_engines() -> None:
    """Its later tokens stand on the key-value cache of the older weights, where rollout.kv_after_swap keeps that. Weights
    that a restart took back are other ones, too."""
    versions = [[(0, 1), (1, 2)]] * 2
    mixed = scored_group(0, rewards=[1.0, 0.0], versions=versions, responses=[[1, 2, 3]] * 2)
    fresh = scored_group(1, rewards=[1.0, 0.0], versions=[[(1, 3)]] * 2, responses=[[1, 2, 3]] * 2)
    config = settings(groups_per_step=1)
    taken_back = scored_group(2, rewards=[1.0, 0.0], versions=[[(1, 2), (2, 1)]] * 2, responses=[[1, 2, 3]] * 2)
    for group, known in ((mixed, False), (fresh, True), (taken_back, False)):
        report = learner_step(BigramEngine(), assemble([group], 1, config), config, learning_rate=1.0)
        assert (report.engine_mismatch_kl is not None) == known


def test_without_a_proximal_pass_later_steps_say_nothing_of_its_parts() -> None:
    config = settings(mini_batches=2, groups_per_step=4, objective={"type": "reinforce"})
    groups = [scored_group(i, rewards=[1.0, 0.0, 0.25]) for i in range(4)]
    engine = BigramEngine()
    both = learner_step(engine, batch(config, groups), config, learning_rate=1.0)
    alone = settings(groups_per_step=2, objective={"type": "reinforce"})
    first = learner_step(BigramEngine(), batch(alone, groups[:2]), alone, learning_rate=1.0)
    assert both.before_batch_kl == pytest.approx(first.before_batch_kl)
    assert both.within_batch_kl == 0.0


def test_the_reference_does_not_enter_the_ess() -> None:
    reports = []
    for shift in (0.0, 1.0):
        engine = BigramEngine()
        engine.reference = engine.logits + shift * torch.eye(17)
        engine.reference_is_current = False
        reports.append(learner_step(engine, batch(settings()), settings(), learning_rate=0.1))
    assert reports[0].ess_ratio == reports[1].ess_ratio
    assert reports[0].one_way_mean != reports[1].one_way_mean


def test_the_step_is_taken_at_the_rate_times_the_factor() -> None:
    engine = BigramEngine()
    report = learner_step(engine, batch(settings()), settings(), learning_rate=0.4)
    assert 0.1 <= report.lr_factor < 1.0
    assert engine.learning_rates == [report.learning_rate] == [0.4 * report.lr_factor]


def test_forwards_that_say_nothing_new_are_left_out() -> None:
    def calls(**changes: object) -> list[str]:
        engine = BigramEngine()
        engine.shares_prompts = False  # with its prompt once, a group would fit the row that is to be too small for it
        learner_step(engine, batch(settings(**changes)), settings(**changes), learning_rate=0.1)
        first, engine.calls = engine.calls, []
        learner_step(engine, batch(settings(**changes)), settings(**changes), learning_rate=0.1)
        return [*first, "|", *engine.calls]

    assert calls(**GRPO) == ["backward", "|", "backward"]
    assert calls(advantage={"baseline": "mean"}) == ["backward", "|", "reference", "backward"]
    assert calls() == ["backward", "|", "reference", "backward"]  # several micro-batches, each of whole groups
    assert calls(rows_per_micro_batch=99) == ["backward", "|", "reference", "backward"]  # one
    # No micro-batch holds a group, or the objective has statistics of the step.
    assert calls(rows_per_micro_batch=1) == ["current", "backward", "|", "reference", "current", "backward"]
    acpo = {"objective": {"type": "acpo"}}
    assert calls(**acpo) == ["current", "backward", "|", "current", "backward"]
    assert calls(**acpo, advantage={"baseline": "minimum_variance"}) == calls(**acpo)
    assert calls(**acpo, rows_per_micro_batch=99) == ["backward", "|", "backward"]
    assert calls(**acpo, advantage={"baseline": "minimum_variance"}, rows_per_micro_batch=99) == [
        "backward",
        "|",
        "backward",
    ]


def test_an_empty_batch_is_skipped_and_says_so() -> None:
    engine = BigramEngine()
    report = learner_step(
        engine, batch(settings(), [scored_group(0, rewards=[1.0, 1.0])]), settings(), learning_rate=1.0
    )
    assert (report.skipped, report.pass_rate, report.sequences) == ("empty", 1.0, 0)
    assert engine.calls == []


@pytest.mark.parametrize("place", ["weights", "reference"])
def test_numbers_that_are_none_skip_the_step_and_move_nothing(place: str) -> None:
    engine = BigramEngine()
    table = engine.logits if place == "weights" else engine.reference
    table[:, 3] = math.nan
    engine.reference_is_current = place == "weights"
    before = engine.logits.clone()
    report = learner_step(engine, batch(settings()), settings(), learning_rate=1.0)
    assert report.skipped == ("non_finite_ess" if place == "weights" else "non_finite_reference")
    assert torch.equal(before.nan_to_num(), engine.logits.nan_to_num())
    assert (report.missing_reference_tokens > 0) == (place == "reference")
    assert (engine.gradient == 0).all()


def test_tokens_masked_by_age_change_nothing_whatever_their_log_probs() -> None:
    def group(logp: float) -> ScoredGroup:
        return scored_group(
            0,
            rewards=[1.0, 0.0],
            prompt=[1, 2],
            responses=[[3, 4], [5, 6]],
            versions=[[(0, 1), (2, 1)], [(2, 2)]],
            behavior_logp=[[logp, -2.0], [-2.0, -2.0]],
        )

    config = settings(stale_tokens="mask", max_lag=0)
    expected = moved(config, [group(-1.0)])
    for logp in (-7.0, math.nan, -math.inf):
        assert torch.equal(moved(config, [group(logp)]), expected)


def test_temperature_divides_the_logits() -> None:
    """At temperature 2 a table twice as large is the same policy."""
    engine, config = BigramEngine(), settings(**GRPO)
    engine.logits *= 2
    hot = [scored_group(i, rewards=[1.0, 0.0], temperature=2.0) for i in range(3)]
    cold = [scored_group(i, rewards=[1.0, 0.0]) for i in range(3)]
    a = learner_step(engine, batch(config, hot), config, learning_rate=0.0)
    b = learner_step(BigramEngine(), batch(config, cold), config, learning_rate=0.0)
    assert (a.entropy, a.ess_ratio, a.loss) == pytest.approx((b.entropy, b.ess_ratio, b.loss), rel=1e-5)


def test_steps_raise_the_probability_of_what_was_rewarded() -> None:
    engine, config = BigramEngine(), settings()
    groups = [scored_group(0, rewards=[1.0, 0.0], prompt=[1, 2], responses=[[3], [4]])]
    for _ in range(20):
        learner_step(engine, batch(config, [on_policy(engine, groups[0])]), config, learning_rate=1.0)
    assert engine.sequence_logps([[2, 3]])[0] > BigramEngine().sequence_logps([[2, 3]])[0]
    assert engine.sequence_logps([[2, 4]])[0] < BigramEngine().sequence_logps([[2, 4]])[0]


@pytest.mark.parametrize("baseline", ["mean", "minimum_variance", "minimum_variance_exact"])
def test_a_constant_added_to_every_reward_changes_no_step(baseline: str) -> None:
    config = settings(advantage={"baseline": baseline})

    def stepped(more: float) -> torch.Tensor:
        return moved(config, [scored_group(i, rewards=[1.0 + more, more, 0.25 + more]) for i in range(3)])

    assert torch.allclose(stepped(0.0), stepped(4.0), atol=1e-6)
