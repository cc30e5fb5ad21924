"""One learner step, in the order of the paper: score, weigh, subtract the baseline, backward, ESS, step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from learner.batch import StepBatch
from learner.engine import TokenStatistics, TrainEngine
from learner.objective import Objective, make_objective
from learner.objective.advantage import advantages
from learner.objective.aggregate import aggregate, token_scale
from learner.objective.baseline import group_mean, log_gradient_norm, minimum_variance_baseline, reward_sign
from learner.objective.ess import ess_ratio, learning_rate_factor
from learner.objective.ratios import LOWEST_LOG_WEIGHT, log_ratio, sequence_log_weight, truncated_weight
from learner.packing import MicroBatch, pack
from services.config.learner import LearnerConfig

SkipReason = Literal["empty", "non_finite_reference", "non_finite_ess", "non_finite_loss", "non_finite_gradient"]


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did; the same on every rank. Numbers of a skipped step are nan where they were not reached."""

    skipped: SkipReason | None
    """Why the weights did not change; None when they did."""
    sequences: int
    """That reached the loss: B."""
    tokens: int
    """Response tokens that reached the loss."""
    mean_reward: float
    """Over every sequence of the groups consumed, zero-variance groups included."""
    pass_rate: float
    """Fraction of those with the verdict `correct`."""
    loss: float
    grad_norm: float
    """Before clipping."""
    ess_ratio: float
    """Effective sample size over sequences, (0, 1]."""
    lr_factor: float
    learning_rate: float
    """That the step was taken with: the schedule's times lr_factor."""
    mean_lag_steps: float
    p95_lag_steps: float
    max_lag_steps: int
    entropy: float
    """Mean over response tokens, nats, at the sampling temperature."""
    mismatch_kl: float
    """Mean over response tokens of r - 1 - log r with r = current/behavior, nats: estimates KL(behavior || current)."""
    truncated_fraction: float
    """Sequences whose importance weight was cut at the cap."""
    mean_importance_ratio: float
    """Mean over sequences, after truncation."""
    one_way_mean: float
    """Mean one-way weight over response tokens; 1 for objectives without one."""
    one_way_low_fraction: float
    """Tokens at the lower bound (gain locked)."""
    one_way_high_fraction: float
    """Tokens at the upper bound (alignment accelerated)."""
    reference_gap: float
    """Mean over response tokens of current - reference log-prob, nats; 0 right after a ratchet."""
    mean_baseline_shift: float
    """Mean over groups of |baseline - mean reward|."""
    missing_reference_tokens: int
    """Tokens whose reference log-prob was not finite: with one, the step is skipped."""


def learner_step(engine: TrainEngine, batch: StepBatch, settings: LearnerConfig, *, learning_rate: float) -> StepReport:
    """Called by every rank with the same batch. learning_rate: the schedule's, before the ESS factor."""
    if len(batch) == 0:
        return _report(batch, "empty")
    micro_batches = pack(
        batch,
        row_tokens=settings.row_tokens,
        rows_per_micro_batch=settings.rows_per_micro_batch,
        rank=engine.rank,
        world_size=engine.world_size,
    )
    objective = make_objective(settings.objective)
    step = _Step(batch, settings, objective, engine.device)
    if objective.needs_reference and not engine.reference_is_current:
        scored = engine.token_statistics(micro_batches, "reference")
        step.ref_logp = engine.sum_over_ranks(step.flatten(micro_batches, [s.logp for s in scored]))
        missing = int((~torch.isfinite(step.ref_logp[step.mask])).sum())
        if missing:
            return _report(batch, "non_finite_reference", missing_reference_tokens=missing)
    if settings.advantage.baseline == "mean":
        step.subtract_mean()
    elif len(micro_batches) > 1 or engine.world_size > 1:
        scored = engine.token_statistics(micro_batches, "current")
        logp = engine.sum_over_ranks(step.flatten(micro_batches, [s.logp for s in scored]))
        sum_p2 = engine.sum_over_ranks(step.flatten(micro_batches, [s.sum_p2 for s in scored]))
        step.subtract_minimum_variance_baseline(logp, sum_p2)
    # else the one micro-batch is the whole step: its own forward says what the baseline needs

    loss = engine.backward(micro_batches, step.loss)
    # What the backward saw, from every rank: the same numbers everywhere, so the same decision everywhere.
    logp, entropy, weight = engine.sum_over_ranks(torch.stack([step.logp, step.entropy, step.one_way_weight])).unbind()
    loss = float(engine.sum_over_ranks(torch.tensor(loss, dtype=torch.float64)))
    log_weight = sequence_log_weight(logp, step.behavior_logp, step.mask, step.lengths)
    ratio = ess_ratio(log_weight)
    measured = step.measure(logp, entropy, weight, log_weight)
    if not math.isfinite(ratio) or not math.isfinite(loss):
        engine.discard_gradients()
        return _report(batch, "non_finite_loss" if math.isfinite(ratio) else "non_finite_ess", **measured)
    factor = learning_rate_factor(ratio, settings.ess)
    taken = engine.step(learning_rate * factor)
    measured |= {"loss": loss, "ess_ratio": ratio, "lr_factor": factor, "grad_norm": taken.grad_norm}
    measured["learning_rate"] = learning_rate * factor if taken.applied else math.nan
    return _report(batch, None if taken.applied else "non_finite_gradient", **measured)


class _Step:
    """The whole batch on the engine's device, and what this rank's backward leaves on its flat axis."""

    def __init__(self, batch: StepBatch, settings: LearnerConfig, objective: Objective, device: torch.device) -> None:
        self.settings, self.objective, self.device = settings, objective, device
        self.behavior_logp = batch.behavior_logp.to(device)
        self.mask = batch.mask.to(device)
        self.lengths = batch.cu_seqlens.diff().to(device)
        self.reward = batch.reward.to(device)
        self.group = batch.group.to(device)
        self.sign = reward_sign(self.reward, self.group).float()
        self.step_sequences, self.step_tokens = len(batch), int(batch.mask.sum())
        self.baseline = self.mean = group_mean(self.reward, self.group)
        self.advantage: Tensor | None = None
        self.ref_logp: Tensor | None = None  # None: the reference is the current policy, or is not needed
        self.logp = torch.zeros_like(self.behavior_logp)
        self.entropy = torch.zeros_like(self.behavior_logp)
        self.one_way_weight = torch.zeros_like(self.behavior_logp)

    def flatten(self, micro_batches: Sequence[MicroBatch], values: Sequence[Tensor]) -> Tensor:
        """Per-token values of this rank's micro-batches on the batch's axis, 0 elsewhere. [T]."""
        flat = torch.zeros_like(self.behavior_logp)
        for micro_batch, value in zip(micro_batches, values, strict=True):
            if len(micro_batch.sequence_index):
                flat[micro_batch.token_index.to(self.device)] = value
        return flat

    def token_weight(self, logp: Tensor, ref_logp: Tensor | None, sign: Tensor) -> Tensor:
        current = logp.detach()
        return self.objective.token_weight(current, current if ref_logp is None else ref_logp, sign)

    def subtract_mean(self) -> None:
        self.advantage = advantages(self.reward, self.baseline, self.group, self.settings.advantage.normalize)

    def subtract_minimum_variance_baseline(self, logp: Tensor, sum_p2: Tensor) -> None:
        """logp, sum_p2: [T] of the current policy, all ranks."""
        log_weight = sequence_log_weight(logp, self.behavior_logp, self.mask, self.lengths)
        log_norm = log_gradient_norm(
            log_weight.clamp(LOWEST_LOG_WEIGHT, math.log(self.settings.importance.cap)),
            self.token_weight(logp, self.ref_logp, self.sign.repeat_interleave(self.lengths)),
            logp,
            sum_p2,
            self.mask,
            self.lengths,
            per_token=self.settings.aggregation == "token_mean",
        )
        self.baseline = minimum_variance_baseline(self.reward, log_norm, self.group)
        self.subtract_mean()

    def loss(self, micro_batch: MicroBatch, statistics: TokenStatistics) -> Tensor:
        """The micro-batch's share of -(1/B) sum_i rho_bar_i A_i (1/L_i) sum_t w_t surrogate_t."""
        at, sequences = micro_batch.token_index.to(self.device), micro_batch.sequence_index.to(self.device)
        lengths, mask, behavior_logp = self.lengths[sequences], self.mask[at], self.behavior_logp[at]
        logp = statistics.logp
        if self.advantage is None:
            whole = [self.flatten([micro_batch], [value]) for value in (logp.detach(), statistics.sum_p2)]
            self.subtract_minimum_variance_baseline(*whole)
        assert self.advantage is not None
        proximal_logp = logp.detach()  # one optimizer step a batch: the proximal policy is the current one
        importance = truncated_weight(
            sequence_log_weight(logp, behavior_logp, mask, lengths), self.settings.importance.cap
        ).repeat_interleave(lengths)
        advantage = self.advantage[sequences].repeat_interleave(lengths)
        sign = self.sign[sequences].repeat_interleave(lengths)
        weight = self.token_weight(logp, None if self.ref_logp is None else self.ref_logp[at], sign)
        token_loss = -importance * weight * self.objective.surrogate(logp, proximal_logp, advantage)
        scale = token_scale(
            self.settings.aggregation,
            mask,
            lengths,
            step_sequences=self.step_sequences,
            step_tokens=self.step_tokens,
        )
        self.logp[at], self.entropy[at], self.one_way_weight[at] = proximal_logp, statistics.entropy, weight
        return aggregate(token_loss, scale)

    def measure(self, logp: Tensor, entropy: Tensor, weight: Tensor, log_weight: Tensor) -> dict[str, float]:
        """Means over tokens that count, from all ranks' [T]; log_weight: [N]."""
        low = getattr(self.settings.objective, "weight_low", 1.0)
        high = getattr(self.settings.objective, "weight_high", 1.0)
        counted = weight[self.mask]
        mismatch = log_ratio(logp, self.behavior_logp, self.mask)[self.mask]
        gap = torch.zeros(()) if self.ref_logp is None else (logp - self.ref_logp)[self.mask]
        return {
            "entropy": float(entropy[self.mask].mean()),
            "mismatch_kl": float((mismatch.exp() - 1 - mismatch).mean()),
            "truncated_fraction": float((log_weight > math.log(self.settings.importance.cap)).double().mean()),
            "mean_importance_ratio": float(truncated_weight(log_weight, self.settings.importance.cap).mean()),
            "one_way_mean": float(counted.mean()),
            "one_way_low_fraction": float((counted <= low).float().mean()) if low < 1 else 0.0,
            "one_way_high_fraction": float((counted >= high).float().mean()) if high > 1 else 0.0,
            "reference_gap": float(gap.mean()),
            "mean_baseline_shift": float((self.baseline - self.mean).abs().mean()),
        }


_NOT_REACHED: dict[str, float] = {
    "loss": math.nan,
    "grad_norm": math.nan,
    "ess_ratio": math.nan,
    "lr_factor": math.nan,
    "learning_rate": math.nan,
    "entropy": math.nan,
    "mismatch_kl": math.nan,
    "truncated_fraction": math.nan,
    "mean_importance_ratio": math.nan,
    "one_way_mean": math.nan,
    "one_way_low_fraction": math.nan,
    "one_way_high_fraction": math.nan,
    "reference_gap": math.nan,
    "mean_baseline_shift": math.nan,
    "missing_reference_tokens": 0,
}


def _report(batch: StepBatch, skipped: SkipReason | None, **measured: float) -> StepReport:
    lag = batch.lag_steps[batch.mask].double()
    return StepReport(
        skipped=skipped,
        sequences=len(batch),
        tokens=len(lag),
        mean_reward=batch.tally.mean_reward,
        pass_rate=batch.tally.pass_rate,
        mean_lag_steps=float(lag.mean()) if len(lag) else math.nan,
        p95_lag_steps=float(lag.kthvalue(math.ceil(0.95 * len(lag))).values) if len(lag) else math.nan,
        max_lag_steps=int(lag.max()) if len(lag) else 0,
        **{**_NOT_REACHED, **measured},  # type: ignore[arg-type]
    )
