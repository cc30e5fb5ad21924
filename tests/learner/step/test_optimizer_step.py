"""Several optimizer steps a batch, references that move by themselves, and what is left out of a step."""

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.batch.step_batch import assemble
from learner.engine.protocol import Policy, TokenStatistics
from learner.step.learner_step import learner_step
from learner.step.report import StepReport
from services.config.learner import LearnerConfig
from services.wire.score import ScoredGroup
from tests.fakes.ranks import on_ranks
from tests.fakes.train_engine import BigramEngine
from tests.learner.every_objective import settings
from tests.learner.tiny import scored_group

REWARDS = [1.0, 0.0, 0.25]


def groups(count: int = 4, rewards: list[float] = REWARDS) -> list[ScoredGroup]:
    return [scored_group(i, rewards=rewards) for i in range(count)]


def by_hand(config: LearnerConfig, engine: BigramEngine, learning_rate: float) -> Tensor:
    """GRPO as PPO with two optimizer steps: ratios to the weights that the batch began with, plain autograd."""
    batch = assemble(groups(), 0, config)
    started, table = engine.logits.clone(), engine.logits.clone()
    ends = batch.cu_seqlens.tolist()
    for first in (0, 2):
        table.requires_grad_()
        loss = torch.zeros(())
        rows = [i for i in range(len(batch)) if first <= batch.group[i] < first + 2]
        for i in rows:
            whole = torch.cat([batch.prompt_ids[i][-1:], batch.response_ids[ends[i] : ends[i + 1]]])
            logp = table.log_softmax(-1)[whole[:-1], whole[1:]]
            proximal = started.log_softmax(-1)[whole[:-1], whole[1:]]
            weight = (proximal - batch.behavior_logp[ends[i] : ends[i + 1]]).sum().exp().clamp(max=8.0)
            own = batch.reward[batch.group == batch.group[i]]
            advantage = ((batch.reward[i] - own.mean()) / (own.std() + 1e-6)).float()
            r = (logp - proximal).exp()
            surrogate = torch.minimum(r * advantage, r.clamp(0.8, 1.2) * advantage)
            loss = loss - weight * surrogate.mean() / len(rows)
        (gradient,) = torch.autograd.grad(loss, table)
        table = table.detach() - learning_rate * gradient
    return table


def test_two_optimizer_steps_share_the_proximal_policy_of_the_batch() -> None:
    config = settings(
        "grpo",
        mini_batches=2,
        advantage={"baseline": "mean", "normalize": "sample_std"},
        ess={"enabled": False},
    )
    engine = BigramEngine()
    expected = by_hand(config, engine, 4.0)
    report = learner_step(engine, assemble(groups(), 0, config), config, learning_rate=4.0)
    assert report.optimizer_steps == 2
    assert torch.allclose(engine.logits, expected, atol=1e-5)
    assert engine.calls == ["current", "backward", "backward"]  # the first step's proximal policy is the current one


def test_a_reference_that_the_batch_began_at_is_behind_from_the_second_optimizer_step_on() -> None:
    """Right after a ratchet one-way weights are 1 in the first of them, and not in the second."""
    bounds = {"weight_low": 0.01, "weight_high": 100.0}
    config = settings(
        "owpo", mini_batches=2, objective={"type": "owpo", **bounds}, advantage={"baseline": "mean"}, max_lag=0
    )
    engine, behind = BigramEngine(), BigramEngine()
    learner_step(engine, assemble(groups(), 0, config), config, learning_rate=2.0)
    behind.reference_is_current = False  # as far as it can know: the same log-probs, asked for
    learner_step(behind, assemble(groups(), 0, config), config, learning_rate=2.0)
    assert torch.equal(engine.logits, behind.logits)
    assert engine.calls == ["reference", "backward", "backward"]  # which is the proximal policy as well


def test_objectives_without_a_proximal_policy_do_not_score_one() -> None:
    for variant in ("reinforce", "asymre", "opmd", "minpro"):
        engine, config = BigramEngine(), settings(variant, mini_batches=2)
        learner_step(engine, assemble(groups(), 0, config), config, learning_rate=1.0)
        assert engine.calls == ["backward", "backward"]


def test_reinforce_weighs_by_the_policy_of_each_optimizer_step() -> None:
    """The second of two steps a batch is the step that a batch of its own would have been."""
    config, engine = settings("reinforce", mini_batches=2), BigramEngine()
    learner_step(engine, assemble(groups(), 0, config), config, learning_rate=2.0)
    one, once = BigramEngine(), settings("reinforce")
    for part in (groups()[:2], groups()[2:]):
        learner_step(one, assemble(part, 0, once), once, learning_rate=2.0)
    assert torch.allclose(engine.logits, one.logits, atol=1e-6)


class ForgetfulEngine(BigramEngine):
    """Its reference knows no log-prob of token 16."""

    def token_statistics(self, micro_batches: Sequence[MicroBatch], policy: Policy) -> list[TokenStatistics]:
        scored = super().token_statistics(micro_batches, policy)
        return [
            dataclasses.replace(x, logp=torch.where(m.target_ids == 16, torch.nan, x.logp))
            for m, x in zip(micro_batches, scored, strict=True)
        ]


def test_a_part_that_cannot_be_stepped_on_is_left_out_and_the_others_are_not() -> None:
    engine, config = ForgetfulEngine(), settings("owpo", mini_batches=4, advantage={"baseline": "mean"})
    engine.reference_is_current = False
    made = [scored_group(i, rewards=[1.0, 0.0], responses=[[16 if i == 2 else 3], [4, 5]]) for i in range(4)]
    report = learner_step(engine, assemble(made, 0, config), config, learning_rate=1.0)
    assert (report.skipped, report.optimizer_steps, report.missing_reference_tokens) == (None, 3, 1)
    alone = learner_step(engine, assemble(made[2:3], 0, config), config, learning_rate=1.0)
    assert (alone.skipped, alone.optimizer_steps) == ("non_finite_reference", 0)


# The baseline of gradient norms, from the forward that is differentiated

ONE_MICRO_BATCH = {"row_tokens": 24, "rows_per_micro_batch": 99}
GROUPS_FIT = {"row_tokens": 24, "rows_per_micro_batch": 2}
NO_GROUP_FITS = {"row_tokens": 11, "rows_per_micro_batch": 1}
UNEVEN = [[1.0, 0.0, 0.25], [1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [0.25, 1.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5]]


def stepped(engine: BigramEngine, variant: str, **changes: object) -> tuple[StepReport, Tensor]:
    """With a reference behind, two optimizer steps a batch; groups of two to four, one without variance."""
    random = torch.Generator().manual_seed(3)
    engine.reference = engine.logits + torch.randn(17, 17, generator=random) * 0.5
    engine.reference_is_current = False
    config = settings(
        variant, mini_batches=2, zero_variance="train", advantage={"baseline": "minimum_variance"}, **changes
    )
    made = [scored_group(i, rewards=rewards) for i, rewards in enumerate(UNEVEN)]
    return learner_step(engine, assemble(made, 0, config), config, learning_rate=5.0), engine.logits


def numbers(report: StepReport) -> dict[str, float]:
    """Those that are known."""
    known = dataclasses.asdict(report).items()
    return {name: value for name, value in known if isinstance(value, int | float)}


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("rows", [ONE_MICRO_BATCH, GROUPS_FIT, NO_GROUP_FITS])
@pytest.mark.parametrize("variant", ["owpo", "reinforce", "dapo", "acpo", "bapo", "minpro"])
def test_step_and_report_are_the_same_however_the_proxys_groups_are_cut_up(
    variant: str, rows: dict[str, int], ranks: int
) -> None:
    expected, moved = stepped(BigramEngine(), variant, **ONE_MICRO_BATCH)
    assert expected.mean_baseline_shift > 0.01
    together = on_ranks(ranks, lambda engine: stepped(engine, variant, **rows))
    for report, logits in together:
        assert report == together[0][0]
        assert torch.allclose(logits, moved, atol=1e-5)
        assert report.skipped is None
        assert numbers(report) == pytest.approx(numbers(expected), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_proxy_asks_for_no_forward_of_its_own_where_micro_batches_hold_whole_groups(ranks: int) -> None:
    def scored(variant: str, rows: dict[str, int]) -> list[str]:
        """The forwards of the current policy or before it."""

        def work(engine: BigramEngine) -> list[str]:
            stepped(engine, variant, **rows)
            return [call for call in engine.calls if call != "reference"]

        (calls,) = {tuple(calls) for calls in on_ranks(ranks, work)}
        return list(calls)

    alone = ranks == 1
    # The second optimizer step's proximal policy is what the batch began with: scored, but not for the baseline.
    assert scored("owpo", GROUPS_FIT) == ["current", "backward", "backward"]
    assert scored("reinforce", GROUPS_FIT) == ["backward", "backward"]
    assert scored("reinforce", NO_GROUP_FITS) == ["current", "backward", "current", "backward"]
    assert (scored("bapo", ONE_MICRO_BATCH) == ["current", "backward", "backward"]) == alone


# References


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_the_moving_average_follows_every_optimizer_step(decay: float) -> None:
    config = settings("ppo_ewma", reference={"type": "ema", "decay": decay, "debiased": False}, mini_batches=2)
    engine, expected = BigramEngine(), BigramEngine().logits
    seen = [engine.logits.clone()]
    take = engine.step

    def stepping(learning_rate: float):  # type: ignore[no-untyped-def]
        taken = take(learning_rate)
        seen.append(engine.logits.clone())
        return taken

    engine.step = stepping  # type: ignore[method-assign]
    learner_step(engine, assemble(groups(), 0, config), config, learning_rate=3.0)
    for logits in seen[1:]:
        expected = decay * expected + (1 - decay) * logits
    assert torch.allclose(engine.reference, expected, atol=1e-6)
    if decay == 1.0:
        assert torch.equal(engine.reference, seen[0])
    if decay == 0.0:
        assert torch.equal(engine.reference, engine.logits)
        assert engine.reference_is_current


def test_a_debiased_average_counts_the_weights_it_began_with_like_any_others() -> None:
    config, engine = settings("ppo_ewma", reference={"type": "ema", "decay": 0.8}, mini_batches=2), BigramEngine()
    seen = [engine.logits.clone()]
    take = engine.step

    def stepping(learning_rate: float):  # type: ignore[no-untyped-def]
        taken = take(learning_rate)
        seen.append(engine.logits.clone())
        return taken

    engine.step = stepping  # type: ignore[method-assign]
    for _ in range(2):
        learner_step(engine, assemble(groups(), 0, config), config, learning_rate=3.0)
    shares = [0.8 ** (4 - i) for i in range(5)]
    expected = sum(share / sum(shares) * logits for share, logits in zip(shares, seen, strict=True))
    assert torch.allclose(engine.reference, torch.as_tensor(expected), atol=1e-6)


def test_a_fixed_reference_stays_where_the_run_began() -> None:
    config, engine = settings("owpo", reference={"type": "fixed"}), BigramEngine()
    start = engine.reference.clone()
    for _ in range(3):
        learner_step(engine, assemble(groups(), 0, config), config, learning_rate=1.0)
    assert torch.equal(engine.reference, start)


def test_distillation_brings_the_student_to_the_teacher() -> None:
    engine, config = BigramEngine(), settings("opd")
    engine.teachers = [BigramEngine(seed=5).logits]

    def divergence() -> float:
        p = engine.logits.log_softmax(-1)
        return float((p.exp() * (p - engine.teachers[0].log_softmax(-1))).sum(-1).mean())

    random, first = torch.Generator().manual_seed(0), divergence()
    for _ in range(15):  # on policy: what is distilled from is the student's own
        tokens = torch.randint(0, 17, (32, 1), generator=random)
        for _ in range(6):
            following = engine.logits.softmax(-1)[tokens[:, -1]]
            tokens = torch.cat([tokens, torch.multinomial(following, 1, generator=random)], 1)
        made = [
            scored_group(
                i,
                rewards=[0.0, 0.0],
                prompt=[5, row[0]],
                responses=[row[1:], row[1:]],
                behavior_logp=[engine.sequence_logps([row])[0]] * 2,
            )
            for i, row in enumerate(tokens.tolist())
        ]
        assert learner_step(engine, assemble(made, 0, config), config, learning_rate=20.0).skipped is None
    assert divergence() < 0.5 * first


# What is left out


def test_the_pivot_reaches_neither_loss_nor_denominator() -> None:
    config = settings("mc_grpo")
    made = groups(2, rewards=[1.0, 0.0, 0.25])  # the third is the median
    engine = BigramEngine()
    report = learner_step(engine, assemble(made, 0, config), config, learning_rate=1.0)
    assert report.sequences == 4
    # Without the pivot, and with the advantages that it gave: 0.75 and -0.25.
    batch, table = assemble(made, 0, config), BigramEngine().logits.requires_grad_()
    loss = torch.zeros(())
    for i, (start, end) in enumerate(itertools.pairwise(batch.cu_seqlens.tolist())):
        whole = torch.cat([batch.prompt_ids[i][-1:], batch.response_ids[start:end]])
        logp = table.log_softmax(-1)[whole[:-1], whole[1:]]
        weight = (logp.detach() - batch.behavior_logp[start:end]).sum().exp().clamp(max=8.0)
        loss = loss - weight * (float(batch.reward[i]) - 0.25) * logp.mean() / 4
    (gradient,) = torch.autograd.grad(loss, table)
    assert torch.allclose(engine.logits, table.detach() - gradient, atol=1e-6)


def test_groups_without_variance_are_trained_on_only_where_the_settings_say_so() -> None:
    equal = groups(2, rewards=[1.0, 1.0])
    assert len(assemble(equal, 0, settings("dapo"))) == 0
    opd = settings("opd")
    assert len(assemble(equal, 0, opd)) == 4
    for variant in ("grpo", "owpo", "dapo", "mc_grpo"):  # and then they do nothing where there is only an advantage
        config, engine = settings(variant, zero_variance="train"), BigramEngine()
        report = learner_step(engine, assemble(equal, 0, config), config, learning_rate=1.0)
        assert report.skipped is None
        assert torch.equal(engine.logits, BigramEngine().logits)
    # The mean of seven tenths is not a tenth: over a deviation of nearly nothing, what rounding leaves would be a step.
    tenths = [scored_group(0, rewards=[0.1] * 7)]
    over = settings("grpo", zero_variance="train", advantage={"baseline": "mean", "normalize": "population_std"})
    engine = BigramEngine()
    assert learner_step(engine, assemble(tenths, 0, over), over, learning_rate=1.0).skipped is None
    assert torch.equal(engine.logits, BigramEngine().logits)


@pytest.mark.parametrize("action", ["truncate", "mask", "reject"])
def test_a_sequence_that_was_rejected_is_no_reason_for_a_shorter_step(action: str) -> None:
    config = settings("reinforce", importance={"level": "sequence", "action": action}, ess={"enabled": True})
    engine = BigramEngine()
    responses = [[3, 4], [5, 6], [3, 7], [5, 9]]
    logp = [engine.sequence_logps([[2, *r]])[0] for r in responses]
    logp[0] = [x - 15 for x in logp[0]]
    made = [scored_group(0, rewards=[1.0, 0.0, 0.0, 1.0], prompt=[1, 2], responses=responses, behavior_logp=logp)]
    report = learner_step(engine, assemble(made, 0, config), config, learning_rate=1.0)
    assert (report.ess_ratio, report.lr_factor) == pytest.approx(
        (0.25, 0.5) if action == "truncate" else (1.0, 1.0), rel=1e-3
    )


def test_when_every_sequence_is_rejected_nothing_is_stepped_on() -> None:
    config, engine = settings("reinforce", importance={"action": "reject"}), BigramEngine()
    far = [scored_group(0, rewards=[1.0, 0.0], responses=[[3], [4]], behavior_logp=[[-50.0], [-50.0]])]
    report = learner_step(engine, assemble(far, 0, config), config, learning_rate=1.0)
    assert report.skipped == "non_finite_ess"
    assert torch.equal(engine.logits, BigramEngine().logits)


@pytest.mark.parametrize("level", ["token", "sequence", "prefix"])
@pytest.mark.parametrize("action", ["mask", "reject"])
def test_sequences_beyond_the_bounds_leave_the_others_their_share(level: str, action: str) -> None:
    """A sequence that is far off policy contributes nothing, and nothing else changes by that."""

    def moved(far: float, cap: float) -> Tensor:
        config = settings("reinforce", importance={"level": level, "action": action, "cap": cap})
        engine = BigramEngine()
        responses = [[3, 4], [5, 6], [3, 7]]
        logp = [engine.sequence_logps([[2, *r]])[0] for r in responses]
        logp[0] = [x - far for x in logp[0]]
        made = [scored_group(0, rewards=REWARDS, prompt=[1, 2], responses=responses, behavior_logp=logp)]
        assert learner_step(engine, assemble(made, 0, config), config, learning_rate=1.0).skipped is None
        return engine.logits - BigramEngine().logits

    without = moved(9.0, 1.5)
    assert torch.equal(without, moved(5.0, 1.5))
    whole, alone = moved(0.0, 1.5), moved(0.0, 1.5) - without
    assert alone.norm() > 1e-3
    assert torch.allclose(whole, without + alone)
    assert alone[5].abs().max() < 1e-6  # nothing of the other sequences' own tokens moved
