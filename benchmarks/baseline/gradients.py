"""Gradients of groups by the learner's own loss: a backward a sequence, and two sums a group.

A baseline gives a group's right responses one advantage and its wrong ones another. With s = +1 of the right and -1 of the
wrong, the gradient of a sequence with advantage A is |A| times that with advantage s, because A = |A| s and what the loss
weighs its tokens with knows the sign alone. So the sum over the right responses and that over the wrong ones are all that
need be kept of a group, whatever the baselines are.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.batch.packing import one_each
from learner.batch.step_batch import assemble
from learner.engine.policy_model import PolicyModel, inputs
from learner.engine.protocol import LossFunction, TokenStatistics, TrainEngine
from learner.objective.ratios import sequence_log_weight
from learner.step.loss import Advantages, LossRecord, StepLoss, StepObjective
from learner.step.optimizer_step import OptimizerStep
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.wire.score import ScoredGroup

GradientOf = Callable[[MicroBatch, LossFunction[LossRecord]], Tensor]
"""The gradient of a micro-batch's loss by all parameters, float32 [P]."""
PIECE = 2**16
"""Parameters in one piece of the products of gradients."""


@dataclass(frozen=True, slots=True)
class Gradients:
    """Gradients of G groups with N sequences: K sums, one or two a group, none where all responses are wrong."""

    sums: list[Tensor]
    """K of float32 [P]."""
    sum_of: Tensor
    """int64 [N]: the sum that a sequence is part of; -1 in a group without a right response."""
    reward: Tensor
    """float64 [N], 0 or 1."""
    group: Tensor
    """int64 [N], 0.. in order."""
    log_norm: Tensor
    """float64 [N]: log of the squared norm of a sequence's gradient; -inf where all rewards of its group are equal."""
    log_proxy: Tensor
    """float64 [N]: the same by the logit proxy, up to a factor that all sequences share."""
    log_weight: Tensor
    """float64 [N]: log of the untruncated importance ratio; nan where all rewards of the group are equal."""

    @property
    def mixed(self) -> Tensor:
        """bool [N]: not all rewards of its group are equal."""
        return torch.isfinite(self.log_norm)


class OfModel:
    """A `GradientOf` with a policy of its own, so that the engine's gradients are not touched."""

    def __init__(
        self, settings: ModelConfig, weights: Iterable[tuple[str, Tensor]], head_chunk_tokens: int | None
    ) -> None:
        self._model = PolicyModel(settings, head_chunk_tokens=head_chunk_tokens, gradient_checkpointing=False)
        own = dict(self._model.named_weights())
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(tensor)
        self._parameters = list(own.values())

    def __call__(self, micro_batch: MicroBatch, loss: LossFunction[LossRecord]) -> Tensor:
        value, _ = loss(micro_batch, TokenStatistics(*self._model(*inputs(micro_batch, torch.device("cpu")))))
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, self._parameters)])


def collect(
    engine: TrainEngine,
    groups: Sequence[ScoredGroup],
    policy_version: int,
    settings: LearnerConfig,
    gradient: GradientOf,
) -> Gradients:
    """engine: scores with the reference, where the objective has one. gradient: at the engine's current weights."""
    # Without a baseline: what a step would subtract from rewards is not wanted, and groups are cut into their sequences.
    plain = settings.advantage.model_copy(update={"baseline": "mean"})
    everything = settings.model_copy(update={"zero_variance": "train", "advantage": plain})
    parts = [_of_group(engine, group, policy_version, everything, gradient) for group in groups]
    offset, sum_of = 0, []
    for part in parts:
        sum_of.append(torch.where(part.sum_of < 0, part.sum_of, part.sum_of + offset))
        offset += len(part.sums)
    return Gradients(
        sums=[one for part in parts for one in part.sums],
        sum_of=torch.cat(sum_of),
        reward=torch.cat([part.reward for part in parts]),
        group=torch.cat([torch.full_like(part.group, g) for g, part in enumerate(parts)]),
        log_norm=torch.cat([part.log_norm for part in parts]),
        log_proxy=torch.cat([part.log_proxy for part in parts]),
        log_weight=torch.cat([part.log_weight for part in parts]),
    )


def _of_group(
    engine: TrainEngine, scored: ScoredGroup, policy_version: int, settings: LearnerConfig, gradient: GradientOf
) -> Gradients:
    batch = assemble([scored], policy_version, settings)
    right = batch.reward > 0
    assert set(batch.reward.tolist()) <= {0.0, 1.0}
    step = OptimizerStep(engine, batch, settings)
    signs = Advantages(torch.where(right, 1.0, -1.0))
    zero, unknown = (torch.full_like(batch.reward, value) for value in (-math.inf, math.nan))
    if not right.any():
        return Gradients([], batch.group - 1, batch.reward, batch.group, zero, zero, unknown)
    objective = StepObjective(step.inputs, step.score(weights_will_move=False), settings)
    signed = StepLoss(objective, lambda places, _: signs.at(places))
    if right.all():
        (micro_batch,) = step.packing.micro_batches
        whole = gradient(micro_batch, signed)
        return Gradients([whole], batch.group, batch.reward, batch.group, zero, zero, unknown)

    scored_tokens: list[TokenStatistics] = []

    def loss(micro_batch: MicroBatch, statistics: TokenStatistics) -> tuple[Tensor, LossRecord]:
        scored_tokens.append(TokenStatistics(statistics.logp.detach(), statistics.entropy, statistics.residual))
        return signed(micro_batch, statistics)

    norms: list[Tensor] = []
    sums: dict[bool, Tensor] = {}
    for micro_batch, is_right in zip(one_each(batch), right.tolist(), strict=True):
        one = gradient(micro_batch, loss)
        norms.append(torch.linalg.vector_norm(one, dtype=torch.float64).square())
        sums[is_right] = sums[is_right] + one if is_right in sums else one
    current = TokenStatistics(
        *(torch.cat([getattr(s, name) for s in scored_tokens]) for name in ("logp", "entropy", "residual"))
    )
    return Gradients(
        sums=[sums[True], sums[False]],
        sum_of=torch.where(right, 0, 1),
        reward=batch.reward,
        group=batch.group,
        log_norm=torch.stack(norms).log(),
        log_proxy=objective.log_proxy_norms(step.inputs.everything, current, signs),
        log_weight=sequence_log_weight(current.logp, batch.behavior_logp, batch.mask, step.inputs.lengths),
    )


def products(sums: Sequence[Tensor]) -> Tensor:
    """Products of every two sums, float64 [K, K]. Computed in pieces, so that no second copy of all of them is held."""
    total = torch.zeros(len(sums), len(sums), dtype=torch.float64)
    for start in range(0, len(sums[0]) if sums else 0, PIECE):
        piece = torch.stack([one[start : start + PIECE] for one in sums])
        total += (piece @ piece.t()).double()
    return total
