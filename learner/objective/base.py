"""What an objective is: up to three functions of the tokens and the objective's own settings."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learner.objective.tokens import Tokens


def _one(tokens: Tokens, settings: Any) -> Tensor:
    return torch.ones_like(tokens.current_logp)


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of a token is -importance weight x token weight x surrogate.

    The step computes importance weights, takes masked tokens out and sums; the objective supplies the rest. Each function takes
    the tokens and the objective's settings.
    """

    surrogate: Callable[[Tokens, Any], Tensor]
    """What is maximized. float32 [T], gradient through those fields of the tokens alone that carry one."""
    token_weight: Callable[[Tokens, Any], Tensor] = _one
    """Positive factor on each token's surrogate, which the baseline's gradient norms contain too. float32 [T], no gradient."""
    statistics: Callable[[Tokens, Any], Tensor] | None = None
    """Computes from the tokens of the whole optimizer step, all micro-batches and ranks, what `surrogate` then finds in
    tokens.statistics. float64, any shape. Costs a forward where a step has more than one micro-batch or rank."""

    def slope(self, tokens: Tokens, settings: Any) -> Tensor:
        """Derivative of the surrogate by each token's log-prob, at the current policy. float32 [T]; 0 where it is clipped."""
        with torch.enable_grad():
            probe = dataclasses.replace(tokens, logp=tokens.current_logp.clone().requires_grad_())
            (slope,) = torch.autograd.grad(self.surrogate(probe, settings).sum(), probe.logp)
        return slope
