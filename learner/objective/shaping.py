"""Shaping: what is made of the rewards of one group before advantages are taken. Pure, in float64.

Order: form, budget, efficiency, overlong. A response that lacks the form counts as not correct for what follows.
"""

from typing import Any

import numpy as np

from services.config.shaping import BudgetConfig, EfficiencyConfig, ShapingConfig
from services.overlong import overlong_punishment

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

AT_BUDGET = 0.5
"""delta of L1-Max: the factor of a response that is exactly as long as the budget."""


def shaped_rewards(
    settings: ShapingConfig, reward: Floats, *, correct: Mask, tokens: Integers, capped_at: Floats, max_tokens: int
) -> Floats:
    """The shaped reward of each of the n responses of a group. float64 [n].

    reward: float64 [n], the verifier's. correct: bool [n], its verdicts. tokens: int64 [n], the responses' lengths. capped_at:
    float64 [n], the most that a response may earn for lack of a form; infinite where it lacks none. max_tokens: of the prompt.
    """
    formed = np.isinf(capped_at)
    shaped = np.minimum(reward, capped_at)
    counts = correct & formed
    if settings.budget is not None:
        shaped = np.where(counts, shaped * budget_factor(settings.budget, tokens), shaped)
    if settings.efficiency is not None:
        shaped = np.where(counts, shaped * efficiency_factor(settings.efficiency, tokens, counts), shaped)
    if settings.overlong is not None:
        bounds = {"max_tokens": max_tokens, "buffer_tokens": settings.overlong.buffer_tokens}
        punishment = np.array([overlong_punishment(int(length), **bounds) for length in tokens], dtype=np.float64)
        shaped = shaped + settings.overlong.penalty * punishment
    result: Floats = shaped
    return result


def budget_factor(settings: BudgetConfig, tokens: Integers) -> Floats:
    """clip(alpha (n_budget - n) + delta, 0, 1) with delta = 0.5: L1-Max (arXiv:2503.04697, equation 2; our reading). float64 [n].

    tokens: int64 [n].
    """
    factor: Floats = np.clip(settings.slope * (settings.tokens - tokens.astype(np.float64)) + AT_BUDGET, 0.0, 1.0)
    return factor


def efficiency_factor(settings: EfficiencyConfig, tokens: Integers, correct: Mask) -> Floats:
    """1 - alpha sigmoid((n - mean) / deviation), both over the group's correct responses (arXiv:2502.04463; our reading).

    tokens: int64 [n]; correct: bool [n]. float64 [n], between 1 - alpha and 1; 1 - alpha / 2 where the correct ones are all of
    one length, or there is none.
    """
    length = tokens.astype(np.float64)
    among = length[correct]
    deviation = float(among.std()) if len(among) else 0.0
    score = (length - among.mean()) / deviation if deviation > 0.0 else np.zeros_like(length)
    # Not 1 / (1 + exp(-x)): tanh does not overflow far from the mean.
    factor: Floats = 1.0 - settings.strength * 0.5 * (1.0 + np.tanh(0.5 * score))
    return factor
