"""The three kinds of baseline, by what they must know: rewards alone, the current policy, or gradients themselves.

Each says how the mini-batch is packed, whether the current policy is scored before the backward, what the advantages of some
sequences are, and how the backward is done, sums over ranks included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.batch.packing import one_each, pack, pack_whole_groups
from learner.batch.step_batch import StepBatch
from learner.engine.protocol import Backward, TokenStatistics, TrainEngine
from learner.objective import OBJECTIVES
from learner.objective.advantage import advantages, group_advantages
from learner.objective.baseline import group_mean, minimum_variance_baseline, reward_sign
from learner.step.exact import TwoGradientSums
from learner.step.inputs import Places, StepInputs
from learner.step.loss import Advantages, LossRecord, StepLoss, StepObjective
from services.config.learner import LearnerConfig


@dataclass(frozen=True, slots=True)
class Packing:
    """This rank's micro-batches, and what has to come before them."""

    micro_batches: list[MicroBatch]
    scores_first: bool
    """Whether the current policy is scored before the backward. It is not where the forward that is differentiated says in
    time what baseline and objective need to know: in a step of one micro-batch everything, in a micro-batch of whole
    groups their baselines."""


@dataclass(frozen=True, slots=True)
class Differentiated:
    """What a step's backward leaves besides the gradient."""

    loss: float
    """This rank's part."""
    records: list[LossRecord]
    """One for each of this rank's micro-batches that has sequences."""
    advantages: Advantages
    """Those of every sequence of the step; the same on every rank."""


class Baseline(Protocol):
    """The number subtracted from the rewards of a group, in one optimizer step."""

    def pack(self, batch: StepBatch, *, rank: int, world_size: int, share_prompts: bool) -> Packing:
        """batch: on the CPU. share_prompts: whether the engine's models can."""
        ...

    def advantages(self, objective: StepObjective, places: Places, statistics: TokenStatistics) -> Advantages:
        """What the loss of these sequences weighs their tokens with. Pure.

        statistics: [M], what the current policy says about their tokens. places: whole groups where the baseline waits
        for it, and the whole step where the objective has statistics of the step.
        """
        ...

    def backward(
        self, engine: TrainEngine, micro_batches: Sequence[MicroBatch], loss: StepLoss, scored: Advantages | None
    ) -> Differentiated:
        """Leave the step's gradient in the engine. scored: the advantages of the whole step where it was scored first."""
        ...


def baseline_of(inputs: StepInputs, settings: LearnerConfig) -> Baseline:
    """The one that learner.advantage.baseline names."""
    if settings.advantage.baseline == "minimum_variance":
        return ProxyBaseline(inputs, settings)
    if settings.advantage.baseline == "minimum_variance_exact":
        return ExactBaseline(inputs, settings)
    return GroupBaseline(inputs, settings)


class GroupBaseline:
    """A baseline of the rewards of a group: its mean, median, and so on. Known from the start."""

    def __init__(self, inputs: StepInputs, settings: LearnerConfig) -> None:
        self._settings = settings
        batch = inputs.batch
        self._advantage = group_advantages(batch.reward, batch.group, inputs.counted, settings.advantage)

    def pack(self, batch: StepBatch, *, rank: int, world_size: int, share_prompts: bool) -> Packing:
        rows = _rows(batch, self._settings, rank, world_size, share_prompts=share_prompts)
        return Packing(rows, scores_first=_has_statistics(self._settings) and not _is_whole_step(rows, world_size))

    def advantages(self, objective: StepObjective, places: Places, statistics: TokenStatistics) -> Advantages:
        own = Advantages(self._advantage[places.sequence_index])
        return objective.with_statistics(own, places, statistics.logp)

    def backward(
        self, engine: TrainEngine, micro_batches: Sequence[MicroBatch], loss: StepLoss, scored: Advantages | None
    ) -> Differentiated:
        done = engine.backward(micro_batches, loss)
        whole = Advantages(self._advantage, statistics=_statistics(scored, done))
        return Differentiated(done.loss, done.records, whole)


class ProxyBaseline:
    """The minimum-variance baseline with the logit proxy for the gradient norms: needs a forward of the current policy."""

    def __init__(self, inputs: StepInputs, settings: LearnerConfig) -> None:
        self._inputs = inputs
        self._settings = settings
        self._sign = reward_sign(inputs.batch.reward, inputs.batch.group, len(inputs.everything.groups)).float()

    def pack(self, batch: StepBatch, *, rank: int, world_size: int, share_prompts: bool) -> Packing:
        settings = self._settings
        if not _has_statistics(settings):
            whole_groups = pack_whole_groups(
                batch,
                row_tokens=settings.row_tokens,
                rows_per_micro_batch=settings.rows_per_micro_batch,
                share_rows=settings.packed_rows,
                share_prompts=share_prompts,
                rank=rank,
                world_size=world_size,
            )
            if whole_groups is not None:
                return Packing(whole_groups, scores_first=False)
        rows = _rows(batch, settings, rank, world_size, share_prompts=share_prompts)
        return Packing(rows, scores_first=not _is_whole_step(rows, world_size))

    def advantages(self, objective: StepObjective, places: Places, statistics: TokenStatistics) -> Advantages:
        batch, logp = self._inputs.batch, statistics.logp
        # Norms and clips need only the advantage's sign, which the baseline leaves as it is.
        signs = objective.with_statistics(Advantages(self._sign[places.sequence_index]), places, logp)
        log_norm = objective.log_proxy_norms(places, statistics, signs)
        reward = batch.reward[places.sequence_index]
        own = minimum_variance_baseline(reward, log_norm, places.group, len(places.groups))
        baseline = self._none_known()
        baseline[places.groups] = own
        advantage = advantages(reward, own, places.group, self._settings.advantage.normalize)
        return objective.with_statistics(Advantages(advantage, baseline), places, logp)

    def backward(
        self, engine: TrainEngine, micro_batches: Sequence[MicroBatch], loss: StepLoss, scored: Advantages | None
    ) -> Differentiated:
        done = engine.backward(micro_batches, loss)
        if scored is not None and scored.baseline is not None:
            baseline = scored.baseline
        else:  # each rank knows the baselines of its own groups
            baseline = self._none_known()
            for record in done.records:
                assert record.advantages.baseline is not None
                baseline += record.advantages.baseline
            baseline = engine.sum_over_ranks(baseline)
        whole = _advantages_over(baseline, self._inputs, self._settings, _statistics(scored, done))
        return Differentiated(done.loss, done.records, whole)

    def _none_known(self) -> Tensor:
        """float64 [G] of 0."""
        reward = self._inputs.batch.reward
        return torch.zeros(len(self._inputs.everything.groups), dtype=reward.dtype, device=reward.device)


class ExactBaseline:
    """The minimum-variance baseline with the gradient norms themselves: one backward a sequence (exact.py)."""

    def __init__(self, inputs: StepInputs, settings: LearnerConfig) -> None:
        self._inputs = inputs
        self._settings = settings
        self._sign = reward_sign(inputs.batch.reward, inputs.batch.group, len(inputs.everything.groups)).float()

    def pack(self, batch: StepBatch, *, rank: int, world_size: int, share_prompts: bool) -> Packing:
        rows = one_each(batch, rank=rank, world_size=world_size)
        return Packing(rows, scores_first=_has_statistics(self._settings) and not _is_whole_step(rows, world_size))

    def advantages(self, objective: StepObjective, places: Places, statistics: TokenStatistics) -> Advantages:
        """Signs: gradients are multiplied by the size of each advantage after they have been measured."""
        own = Advantages(self._sign[places.sequence_index])
        return objective.with_statistics(own, places, statistics.logp)

    def backward(
        self, engine: TrainEngine, micro_batches: Sequence[MicroBatch], loss: StepLoss, scored: Advantages | None
    ) -> Differentiated:
        batch = self._inputs.batch
        sums = TwoGradientSums(batch.reward, batch.group, self._settings.advantage.normalize)
        done = engine.backward_one_by_one(micro_batches, loss, sums)
        whole = _advantages_over(
            engine.sum_over_ranks(sums.baseline), self._inputs, self._settings, _statistics(scored, done)
        )
        of_sign = torch.zeros_like(batch.reward)
        for record in done.records:
            of_sign[record.places.sequence_index] = record.loss.double()
        return Differentiated(float((of_sign * whole.advantage.abs()).sum()), done.records, whole)


def baseline_shift(advantages: Advantages, inputs: StepInputs) -> float:
    """Mean over groups of |baseline - mean reward|; 0 for a baseline that needs no gradient norms."""
    if advantages.baseline is None:
        return 0.0
    return float((advantages.baseline - group_mean(inputs.batch.reward, inputs.batch.group)).abs().mean())


def _advantages_over(
    baseline: Tensor, inputs: StepInputs, settings: LearnerConfig, statistics: Tensor | None
) -> Advantages:
    """Those of the whole step. baseline: float64 [G]."""
    batch = inputs.batch
    advantage = advantages(batch.reward, baseline, batch.group, settings.advantage.normalize)
    return Advantages(advantage, baseline, statistics)


def _rows(
    batch: StepBatch, settings: LearnerConfig, rank: int, world_size: int, *, share_prompts: bool
) -> list[MicroBatch]:
    return pack(
        batch,
        row_tokens=settings.row_tokens,
        rows_per_micro_batch=settings.rows_per_micro_batch,
        share_rows=settings.packed_rows,
        share_prompts=share_prompts,
        rank=rank,
        world_size=world_size,
    )


def _has_statistics(settings: LearnerConfig) -> bool:
    return OBJECTIVES[settings.objective.type].statistics is not None


def _is_whole_step(micro_batches: Sequence[MicroBatch], world_size: int) -> bool:
    return len(micro_batches) == 1 and world_size == 1


def _statistics(scored: Advantages | None, done: Backward[LossRecord]) -> Tensor | None:
    """The objective's statistics of the step: as scored first, or from the one micro-batch that is the whole step."""
    if scored is not None:
        return scored.statistics
    return done.records[0].advantages.statistics if done.records else None
