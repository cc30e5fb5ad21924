"""What an objective did to the tokens of a step: how many it held at a bound, clipped away, or turned round."""

from typing import Any

from torch import Tensor

from learner.objective.tokens import Tokens


def one_way_bounds(tokens: Tokens, weight: Tensor, settings: Any) -> dict[str, float]:
    """Of the tokens of each sign of advantage: the mean one-way weight, and the fractions at its bounds.

    weight: float32 [T]. Without such weights, or without such tokens, the mean is 1 and the fractions are 0.
    """
    low, high = getattr(settings, "weight_low", 1.0), getattr(settings, "weight_high", 1.0)
    fractions = {}
    for name, side in (("positive", tokens.advantage > 0), ("negative", tokens.advantage < 0)):
        fractions[f"one_way_mean_{name}"] = float(weight[side].mean()) if bool(side.any()) else 1.0
        fractions[f"one_way_low_{name}"] = _fraction(weight <= low, side) if low < 1 else 0.0
        fractions[f"one_way_high_{name}"] = _fraction(weight >= high, side) if high > 1 else 0.0
    return fractions


def sign_fractions(tokens: Tokens, slope: Tensor) -> dict[str, float]:
    """Of the tokens with an advantage: without gradient, moved against it, and against it if distillation were added.

    slope: [T], the derivative of the surrogate by each token's log-prob.
    distillation: advantage + log other/current, other the mean of the teachers, or the reference where there are none.
    """
    moved, sign = tokens.advantage != 0, tokens.advantage.sign()
    teachers = tokens.teacher_logp
    other = teachers.mean(0) if len(teachers) else tokens.reference_logp
    distilled = tokens.advantage + other - tokens.current_logp
    return {
        "clipped_fraction": _fraction(slope == 0, moved),
        "sign_flipped_fraction": _fraction(slope * sign < 0, moved),
        "distillation_flips_fraction": _fraction(distilled * sign < 0, moved),
    }


def kl_estimate(logp: Tensor, behavior_logp: Tensor) -> float:
    """Mean of r - 1 - log r, r = exp(logp - behavior_logp), of tokens sampled by behavior. [T], at least one; nats."""
    gap = logp.double() - behavior_logp.double()
    return float((gap.expm1() - gap).mean())


def _fraction(which: Tensor, among: Tensor) -> float:
    """0 among none."""
    return float((which & among).sum() / among.sum().clamp(min=1))
