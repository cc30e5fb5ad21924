"""What an objective did to the tokens of a step: how many it held at a bound, clipped away, or turned around."""

from typing import Any

from torch import Tensor

from learner.objective.tokens import Tokens


def one_way_bounds(tokens: Tokens, weight: Tensor, settings: Any) -> dict[str, float]:
    """For each sign of the advantage: the mean one-way weight of its tokens, and the fractions at the weight's bounds.

    weight: float32 [T]. For an objective without one-way weights, or without such tokens, the mean is 1 and the fractions are 0.
    """
    low = getattr(settings, "weight_low", 1.0)
    high = getattr(settings, "weight_high", 1.0)
    fractions = {}
    for name, side in (("positive", tokens.advantage > 0), ("negative", tokens.advantage < 0)):
        fractions[f"one_way_mean_{name}"] = float(weight[side].mean()) if bool(side.any()) else 1.0
        fractions[f"one_way_low_{name}"] = _fraction(weight <= low, side) if low < 1 else 0.0
        fractions[f"one_way_high_{name}"] = _fraction(weight >= high, side) if high > 1 else 0.0
    return fractions


def sign_fractions(tokens: Tokens, slope: Tensor) -> dict[str, float]:
    """Fractions of the tokens with an advantage that have no gradient, that move against their advantage, and that would move
    against it if distillation were added.

    slope: [T], the derivative of the surrogate by each token's log-prob. With distillation the direction is that of
    advantage + log other/current, where `other` is the mean of the teachers, or the reference where there are none.
    """
    moved = tokens.advantage != 0
    sign = tokens.advantage.sign()
    teachers = tokens.teacher_logp
    other = teachers.mean(0) if len(teachers) else tokens.reference_logp
    distilled = tokens.advantage + other - tokens.current_logp
    return {
        "clipped_fraction": _fraction(slope == 0, moved),
        "sign_flipped_fraction": _fraction(slope * sign < 0, moved),
        "distillation_flips_fraction": _fraction(distilled * sign < 0, moved),
    }


def kl_estimate(logp: Tensor, behavior_logp: Tensor) -> float:
    """Estimate of KL(behavior || current) in nats: the mean of r - 1 - log r, with r = exp(logp - behavior_logp).

    logp, behavior_logp: [T], at least one token, sampled by the behavior policy.
    """
    gap = logp.double() - behavior_logp.double()
    return float((gap.expm1() - gap).mean())


def _fraction(which: Tensor, among: Tensor) -> float:
    """Share of `among` that is in `which`; 0 where `among` is empty. Both bool [T]."""
    return float((which & among).sum() / among.sum().clamp(min=1))
