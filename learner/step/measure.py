"""What is measured of one optimizer step, from the tokens of all ranks: ESS ratios and the figures of its report."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.engine.protocol import GradientStep, TrainEngine
from learner.objective.diagnostics import kl_estimate, one_way_bounds, sign_fractions
from learner.objective.ess import ess_ratio
from learner.objective.importance import importance_weight
from learner.objective.ratios import over_tokens, segment_sum, sequence_log_weight
from learner.objective.tokens import Tokens
from learner.step.loss import StepObjective


@dataclass(frozen=True, slots=True)
class SeenByRanks:
    """What the backward saw of every token and rank. The same numbers everywhere, so the same decisions everywhere."""

    loss: float
    logp: Tensor
    """float32 [T], under the current policy."""
    entropy: Tensor
    """float32 [T]."""
    one_way_weight: Tensor
    """float32 [T]; 0 at tokens that do not count."""


@dataclass(frozen=True, slots=True)
class EssRatios:
    """Effective sample size over sequences that were not rejected, by which weight. nan where one is not finite."""

    untruncated: float
    """The one that decides the step size."""
    truncated: float
    """The same, of importance weights cut to the cap."""
    one_way: float
    """The same, of truncated importance weight times mean one-way weight."""


def ess_ratios(objective: StepObjective, tokens: Tokens, seen: SeenByRanks) -> EssRatios:
    """tokens: the whole step."""
    inputs, batch = objective.inputs, objective.inputs.batch
    log_weight = sequence_log_weight(seen.logp, batch.behavior_logp, batch.mask, inputs.lengths)
    # A sequence that was rejected contributes nothing: its weight is not a reason for a shorter step.
    reached = segment_sum((objective.importance(tokens) > 0).long(), tokens.lengths) > 0
    log_truncated = log_weight[reached].clamp(max=math.log(objective.settings.importance.cap))
    one_way = tokens.sequence_mean(seen.one_way_weight[batch.mask].double())[reached].log()
    return EssRatios(
        untruncated=ess_ratio(log_weight[reached]),
        truncated=ess_ratio(log_truncated),
        one_way=ess_ratio(log_truncated + one_way),
    )


def measure(objective: StepObjective, tokens: Tokens, seen: SeenByRanks) -> dict[str, float | None]:
    """Figures of StepReport, by name: means over the tokens of the whole step that count.

    Those of importance weights are means over what has one: a sequence, or a token at the levels `token` and `prefix`.
    """
    settings, mask = objective.settings, objective.inputs.batch.mask
    log_importance = objective.log_importance(tokens)
    importance = importance_weight(log_importance, tokens.lengths, settings.importance)
    if settings.importance.level == "sequence":
        last = (tokens.lengths.cumsum(0) - 1)[tokens.lengths > 0]
        log_importance = log_importance[last]
        importance = importance[last]
    weighs = settings.objective.numerator != "none"
    beyond = log_importance > math.log(settings.importance.cap)
    weight = seen.one_way_weight[mask]
    return {
        "entropy": float(seen.entropy[mask].mean()),
        "mismatch_kl": kl_estimate(tokens.current_logp, tokens.behavior_logp),
        **_parts_of_mismatch(objective, tokens),
        "truncated_fraction": float(beyond.double().mean()) if weighs else None,
        "mean_importance_ratio": float(importance.mean()) if weighs else None,
        "one_way_mean": float(weight.mean()),
        "reference_gap": float((tokens.current_logp - tokens.reference_logp).mean()),
        **one_way_bounds(tokens, weight, settings.objective),
        **sign_fractions(tokens, objective.functions.slope(tokens, settings.objective)),
    }


def _parts_of_mismatch(objective: StepObjective, tokens: Tokens) -> dict[str, float | None]:
    """Nothing where the proximal policy is not known."""
    if objective.scores.weights_moved and objective.scores.proximal_logp is None:
        return {}
    # Whole sequences: behind older tokens the engine may have kept the key-value cache of older weights (rollout.kv_after_swap).
    # A negative lag is that of a version which a restart took back.
    inputs = objective.inputs
    other = segment_sum((inputs.batch.lag_steps != 0).long(), inputs.lengths) > 0
    fresh = ~over_tokens(other, inputs.lengths, len(inputs.batch.mask))[inputs.batch.mask]
    engines = kl_estimate(tokens.proximal_logp[fresh], tokens.behavior_logp[fresh]) if bool(fresh.any()) else None
    return {
        "engine_mismatch_kl": engines,
        "before_batch_kl": kl_estimate(tokens.proximal_logp, tokens.behavior_logp),
        "within_batch_kl": kl_estimate(tokens.current_logp, tokens.proximal_logp),
    }


def outcome(ess: EssRatios, seen: SeenByRanks, taken: GradientStep) -> dict[str, float | None]:
    """Figures of StepReport, by name, that only a step which was tried has."""
    return {
        "loss": seen.loss,
        "ess_ratio": ess.untruncated,
        "truncated_ess_ratio": ess.truncated,
        "one_way_ess_ratio": ess.one_way,
        "grad_norm": taken.grad_norm,
        "grad_norm_limit": taken.limit,
    }


def assert_ranks_agree(engine: TrainEngine, learning_rate: float) -> None:
    """Compare every bit of it: ranks that step by different amounts hold different models from then on.

    Raises RuntimeError on every rank alike.
    """
    if engine.world_size == 1:
        return
    own = torch.zeros(engine.world_size, dtype=torch.float64)
    own[engine.rank] = learning_rate
    rates = engine.sum_over_ranks(own).tolist()
    if len(set(rates)) > 1:
        raise RuntimeError(
            f"ranks would step at different rates, {', '.join(map(repr, rates))}: their batches or settings differ"
        )
