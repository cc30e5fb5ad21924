"""The baseline of exact gradient norms: against a step by hand, and against the proxy where both must agree."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.batch.packing import one_each, pack
from learner.batch.step_batch import StepBatch, assemble
from learner.engine.protocol import TokenStatistics
from learner.objective.baseline import group_mean, minimum_variance_baseline, reward_sign
from learner.step.exact import squared_norm
from learner.step.learner_step import learner_step
from learner.step.loss import Advantages, StepLoss, StepObjective
from learner.step.optimizer_step import OptimizerStep
from services.config.learner import LearnerConfig
from services.config.objectives.registry import OURS
from services.wire.score import ScoredGroup
from tests.fakes.ranks import on_ranks
from tests.fakes.train_engine import BigramEngine
from tests.learner.every_objective import settings
from tests.learner.tiny import scored_group

EXACT = {"baseline": "minimum_variance_exact", "normalize": "none"}
PROPORTIONAL = [kind for kind, member in OURS.items() if member.proportional]


def groups() -> list[ScoredGroup]:
    """Groups of three rewards, one of them at the mean; of two; and of four with the same rewards twice."""
    rewards = [[1.0, 0.0, 0.5], [1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [0.25, 1.0, 0.0], [1.0, 0.0, 0.0]]
    return [scored_group(i, rewards=r) for i, r in enumerate(rewards)]


def engine() -> BigramEngine:
    made = BigramEngine()
    random = torch.Generator().manual_seed(3)
    made.reference = made.logits + torch.randn(17, 17, generator=random) * 0.5
    made.reference_is_current = False
    return made


def by_hand(config: LearnerConfig, batch: StepBatch, normalize: str) -> tuple[Tensor, Tensor]:
    """(gradient, baselines): a backward a sequence for the norms, then one more for all with the baseline in place."""
    start = engine()
    table = start.logits.clone().requires_grad_()
    ends, value, norms = batch.cu_seqlens.tolist(), [], []
    for i in range(len(batch)):
        whole = torch.cat([batch.prompt_ids[i][-1:], batch.response_ids[ends[i] : ends[i + 1]]])
        logp = table.log_softmax(-1)[whole[:-1], whole[1:]]
        reference = start.reference.log_softmax(-1)[whole[:-1], whole[1:]]
        own = batch.reward[batch.group == batch.group[i]]
        sign = (batch.reward[i] - own.mean()).sign().float()
        rho = (logp.detach() - batch.behavior_logp[ends[i] : ends[i + 1]]).sum().exp().clamp(max=8.0)
        one_way = (-sign * (logp.detach() - reference)).exp().clamp(0.5, 2.0)
        value.append(rho * (one_way * logp).mean() * sign.abs())
        (gradient,) = torch.autograd.grad(value[-1], table, retain_graph=True)
        norms.append(gradient.double().square().sum().log())
    baseline = minimum_variance_baseline(batch.reward, torch.stack(norms), batch.group)
    loss = torch.zeros(())
    for i, one in enumerate(value):
        own = batch.reward[batch.group == batch.group[i]]
        sigma = own.std() + 1e-6 if normalize == "sample_std" else 1.0
        loss = loss - one * float((batch.reward[i] - baseline[batch.group[i]]) / sigma) / len(batch)
    return torch.autograd.grad(loss, table)[0], baseline


@pytest.mark.parametrize("normalize", ["none", "sample_std"])
def test_two_gradient_sums_are_the_backward_with_that_baseline(normalize: str) -> None:
    config = settings("owpo", advantage={**EXACT, "normalize": normalize}, ess={"enabled": False})
    batch, made = assemble(groups(), 0, config), engine()
    expected, baseline = by_hand(config, batch, normalize)
    report = learner_step(made, batch, config, learning_rate=1.0)
    assert made.calls == ["reference", "backward one by one"]
    assert torch.allclose(made.logits, engine().logits - expected, atol=1e-6)
    shift = (baseline - group_mean(batch.reward, batch.group)).abs().mean()
    assert shift > 0.01
    assert report.mean_baseline_shift == pytest.approx(float(shift), rel=1e-4)


@pytest.mark.parametrize("normalize", ["none", "sample_std"])
@pytest.mark.parametrize("offset", [-1e2, 1e4, 1e6])
def test_a_common_offset_of_rewards_changes_no_step(offset: float, normalize: str) -> None:
    """Rewards of 1 in a million and 0 in a million: the two sums are in float32, which does not tell them apart."""
    config = settings("owpo", advantage={**EXACT, "normalize": normalize})
    stepped = []
    for c in (0.0, offset):
        batch, one = assemble(groups(), 0, config), engine()
        shifted = dataclasses.replace(batch, reward=batch.reward + c)
        learner_step(one, shifted, config, learning_rate=1.0)
        stepped.append(one.logits - engine().logits)
    assert stepped[0].norm() > 0.01
    assert float((stepped[1] - stepped[0]).norm() / stepped[0].norm()) < 1e-6


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1.0, 1e15, 1e30])
def test_the_squared_norm_is_that_of_float64_whatever_the_size(size: float) -> None:
    gradients = [torch.linspace(-1, 1, 7) * size, torch.ones(2, 3) * size]
    expected = sum(float(g.double().square().sum()) for g in gradients)
    assert squared_norm(gradients) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", PROPORTIONAL)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_do_not_change_the_step(kind: str, ranks: int) -> None:
    config = settings(kind, advantage=EXACT, mini_batches=2)
    alone = engine()
    report = learner_step(alone, assemble(groups(), 0, config), config, learning_rate=5.0)

    def work(one: BigramEngine) -> tuple[Tensor, float]:
        one.reference = engine().reference
        one.reference_is_current = False
        taken = learner_step(one, assemble(groups(), 0, config), config, learning_rate=5.0)
        return one.logits, taken.loss

    assert report.skipped is None
    assert (alone.logits - engine().logits).norm() > 1e-3
    for logits, loss in on_ranks(ranks, work):
        assert torch.allclose(logits, alone.logits, atol=1e-5)
        assert loss == pytest.approx(report.loss, abs=1e-5)


def test_where_norms_are_those_of_the_proxy_both_take_the_same_step() -> None:
    """One response token after one prompt token of its own: the bigram's logits are what the proxy differentiates by."""
    made = [scored_group(i, rewards=[1.0, 0.0, 0.0], prompt=[i], responses=[[3 + i], [4 + i], [7]]) for i in range(4)]
    stepped = []
    for baseline in ("minimum_variance", "minimum_variance_exact"):
        config, one = settings("owpo", advantage={"baseline": baseline}), engine()
        report = learner_step(one, assemble(made, 0, config), config, learning_rate=1.0)
        stepped.append((one.logits, report.loss, report.mean_baseline_shift))
    assert torch.allclose(stepped[0][0], stepped[1][0], atol=1e-6)
    assert stepped[0][1:] == pytest.approx(stepped[1][1:], rel=1e-4)


@pytest.mark.parametrize("kind", ["owpo", "grpo", "dapo", "cispo", "minpro", "decoupled_ppo"])
def test_the_proxy_leaves_out_what_the_norms_leave_out_clipped_tokens_and_a_reward_at_the_mean(kind: str) -> None:
    """Norms of the proxy are 0 just where the exact ones are, so that b is pulled by the same sequences."""
    one = engine()
    logp = [[-9.0], [-0.01], [-3.0], [-3.0], [-2.5]]  # far below and far above what the policy says
    made = [
        scored_group(
            0, rewards=[1.0, 0.0, 0.5, 1.0, 0.0], prompt=[2], responses=[[3], [4], [5], [6], [7]], behavior_logp=logp
        )
    ]
    config = settings(kind, advantage=EXACT)
    batch = assemble(made, 0, config)
    step = OptimizerStep(one, batch, config)
    # A trust region around what was sampled clips the first token and the second.
    scores = dataclasses.replace(step.score(weights_will_move=False), proximal_logp=batch.behavior_logp)
    objective = StepObjective(step.inputs, scores, config)
    signs = Advantages(reward_sign(batch.reward, batch.group).float())
    (current,) = one.token_statistics(
        pack(batch, row_tokens=24, rows_per_micro_batch=9, rank=0, world_size=1), "current"
    )
    proxy = objective.log_proxy_norms(step.inputs.everything, current, signs)
    plain = StepLoss(objective, lambda places, _: signs.at(places))

    def loss(micro_batch: MicroBatch, statistics: TokenStatistics) -> tuple[Tensor, float]:
        value, _ = plain(micro_batch, statistics)
        (slope,) = torch.autograd.grad(value, statistics.logp, retain_graph=True)
        return value, float(slope.abs().max())

    slopes = one.backward(step.packing.micro_batches, loss).records
    assert slopes[2] == 0  # at the mean
    assert [x == 0 for x in slopes] == [x == -math.inf for x in proxy.tolist()]


def test_every_sequence_is_on_one_rank_with_its_group_and_ranks_run_as_often() -> None:
    batch = assemble(groups(), 0, settings("owpo"))
    for world in (1, 2, 3, 7):
        parts = [one_each(batch, rank=rank, world_size=world) for rank in range(world)]
        assert len({len(p) for p in parts}) == 1
        held = [[i for m in p for i in m.sequence_index.tolist()] for p in parts]
        assert sorted(i for p in held for i in p) == list(range(len(batch)))
        for part in held:
            of = batch.group[part].tolist()
            assert of == sorted(of)
        assert sum(len(batch.group[p].unique()) for p in held) == 5


@pytest.mark.parametrize("kind", sorted(set(OURS) - set(PROPORTIONAL)))
def test_objectives_that_are_not_proportional_to_the_advantage_are_refused(kind: str) -> None:
    other_baseline = "is defined with learner.advantage.baseline" if OURS[kind].baselines else "not proportional"
    with pytest.raises(ValueError, match=other_baseline):
        settings(kind, advantage=EXACT)
