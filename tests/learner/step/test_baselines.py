"""Each kind of baseline says how to pack, whether to score first, and what the advantages are."""

import pytest
import torch

from learner.batch.step_batch import StepBatch, assemble
from learner.engine.protocol import TokenStatistics
from learner.objective.advantage import group_advantages
from learner.objective.baseline import group_mean, reward_sign
from learner.step.baselines import (
    Baseline,
    ExactBaseline,
    GroupBaseline,
    ProxyBaseline,
    baseline_of,
    baseline_shift,
)
from learner.step.inputs import StepInputs
from learner.step.loss import Advantages, StepLoss, StepObjective
from learner.step.scores import Scores, score
from services.config.learner import LearnerConfig
from tests.fakes.train_engine import BigramEngine
from tests.learner.every_objective import settings
from tests.learner.tiny import scored_group

REWARDS = [[1.0, 0.0, 0.25], [1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
ROOMY = {"row_tokens": 24, "rows_per_micro_batch": 99}
WHOLE_GROUPS = {"row_tokens": 24, "rows_per_micro_batch": 2}
NO_GROUP_FITS = {"row_tokens": 11, "rows_per_micro_batch": 1}


def made(config: LearnerConfig) -> tuple[StepBatch, StepInputs, Baseline]:
    batch = assemble([scored_group(i, rewards=r) for i, r in enumerate(REWARDS)], 0, config)
    inputs = StepInputs.of(batch, torch.device("cpu"), config.advantage)
    return batch, inputs, baseline_of(inputs, config)


def objective_of(inputs: StepInputs, config: LearnerConfig) -> StepObjective:
    no_teachers = torch.zeros(0, len(inputs.batch.mask))
    return StepObjective(inputs, Scores(None, None, None, no_teachers, weights_moved=False), config)


def config_of(baseline: str, **changes: object) -> LearnerConfig:
    return variant_of("reinforce", baseline, **changes)


def variant_of(variant: str, baseline: str, **changes: object) -> LearnerConfig:
    return settings(variant, advantage={"baseline": baseline}, **changes)


@pytest.mark.parametrize(
    ("baseline", "kind"),
    [
        ("mean", GroupBaseline),
        ("leave_one_out", GroupBaseline),
        ("minimum_variance", ProxyBaseline),
        ("minimum_variance_exact", ExactBaseline),
    ],
)
def test_the_setting_names_the_kind(baseline: str, kind: type) -> None:
    assert isinstance(made(config_of(baseline))[2], kind)


@pytest.mark.parametrize(
    ("baseline", "variant", "rows", "scores_first", "ranks"),
    [
        ("mean", "reinforce", NO_GROUP_FITS, False, 1),
        ("mean", "acpo", WHOLE_GROUPS, True, 1),  # it has statistics of the step
        ("mean", "acpo", ROOMY, False, 1),  # which one micro-batch says by itself
        ("mean", "acpo", ROOMY, True, 2),  # but not one of two ranks
        ("minimum_variance", "reinforce", WHOLE_GROUPS, False, 2),
        ("minimum_variance", "reinforce", NO_GROUP_FITS, True, 1),
        ("minimum_variance", "acpo", WHOLE_GROUPS, True, 1),
        ("minimum_variance_exact", "reinforce", NO_GROUP_FITS, False, 2),
    ],
)
def test_the_current_policy_is_scored_first_only_where_the_backward_would_not_say_it_in_time(
    baseline: str, variant: str, rows: dict[str, int], scores_first: bool, ranks: int
) -> None:
    batch, _, kind = made(variant_of(variant, baseline, **rows))
    assert kind.pack(batch, rank=0, world_size=ranks, share_prompts=False).scores_first == scores_first


def test_the_exact_baseline_has_a_micro_batch_for_each_sequence() -> None:
    batch, _, kind = made(config_of("minimum_variance_exact", **ROOMY))
    held = [
        m.sequence_index.tolist() for m in kind.pack(batch, rank=0, world_size=1, share_prompts=False).micro_batches
    ]
    assert held == [[i] for i in range(len(batch))]


def test_advantages_of_rewards_alone_are_those_of_the_whole_mini_batch_at_each_place() -> None:
    config = config_of("leave_one_out", **WHOLE_GROUPS)
    batch, inputs, kind = made(config)
    whole = group_advantages(batch.reward, batch.group, inputs.counted, config.advantage)
    for micro_batch in kind.pack(batch, rank=0, world_size=1, share_prompts=False).micro_batches:
        places = inputs.places(micro_batch)
        nothing = torch.zeros(len(places.token_index))
        found = kind.advantages(objective_of(inputs, config), places, TokenStatistics(nothing, nothing, nothing))
        assert torch.equal(found.advantage, whole[places.sequence_index])
        assert found.baseline is None


@pytest.mark.parametrize("baseline", ["minimum_variance", "minimum_variance_exact"])
def test_baselines_of_gradient_norms_keep_the_signs_and_are_the_same_on_every_way(baseline: str) -> None:
    found = []
    for rows in (ROOMY, WHOLE_GROUPS, NO_GROUP_FITS):
        config = config_of(baseline, **rows)
        batch, inputs, kind = made(config)
        engine, objective = BigramEngine(), objective_of(inputs, config)
        packing = kind.pack(batch, rank=0, world_size=1, share_prompts=False)
        scored: Advantages | None = None
        if packing.scores_first:
            current = score(engine, inputs, packing.micro_batches, "current")
            scored = kind.advantages(objective, inputs.everything, current)

        def advantages(places, statistics, kind=kind, objective=objective, scored=scored):  # type: ignore[no-untyped-def]
            return kind.advantages(objective, places, statistics) if scored is None else scored.at(places)

        done = kind.backward(engine, packing.micro_batches, StepLoss(objective, advantages), scored)
        assert done.advantages.baseline is not None
        found.append(done.advantages.baseline)
        sign = reward_sign(batch.reward, batch.group)
        assert torch.equal(done.advantages.advantage.sign().double(), sign)
        assert baseline_shift(done.advantages, inputs) > 1e-3
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert torch.allclose(found[0], found[2], atol=1e-6)
    assert found[0][2] == pytest.approx(0.5, abs=0.5)  # within the rewards of its group
    assert (found[0] - group_mean(batch.reward, batch.group)).abs().max() > 1e-3


def test_a_baseline_of_rewards_alone_has_no_shift() -> None:
    _, inputs, _ = made(config_of("mean"))
    assert baseline_shift(Advantages(torch.zeros(9)), inputs) == 0.0
