"""The longest gradient allowed: `max_grad_norm`, and at most a multiple of the mean norm of recent ones.

Adam divides by a root mean square of recent gradients. Where nearly all rewards of a step are equal, as late in a run, those
are small; the first long gradient then moves every weight by most of the learning rate for about ten steps, by momentum, and
the samples that would show it arrive `lag` steps later. A beta2 near 1 remembers long gradients for longer; the limit is for
the one that comes after they are forgotten.
ZClip (arXiv:2504.02507) and AutoClip (arXiv:2007.14469) cut at a z-score and at a percentile of recent norms; a plain
multiple of their mean needs no statistics to settle and is ours. What it does at lag: docs/benchmarks.md.
"""

import math

from services.config.optimizer import OptimizerConfig

DECAY = 0.9
"""Decay of the mean: about ten optimizer steps, the length of Adam's momentum."""
LEAST = 1e-5
"""No gradient is cut below this norm: torch and DeepSpeed clip norm + 1e-6, which would shrink shorter gradients that are
within the limit."""


class GradientLimit:
    """The state of the limit. It is the same on every rank, because the norms are."""

    def __init__(self, settings: OptimizerConfig, mean: float | None = None) -> None:
        """mean: as saved in a checkpoint; None before the first gradient."""
        self._largest = settings.max_grad_norm
        self._ratio = settings.max_grad_norm_ratio
        self.mean = mean
        """Mean of norms after the cut, so that one long gradient raises it by at most (1 - DECAY) (ratio - 1) of itself."""

    @property
    def now(self) -> float:
        """Euclidean norm, over all parameters and ranks, that the next gradient is cut to if it is longer."""
        if self.mean is None or self._ratio == 0.0:
            return self._largest
        return min(self._largest, max(LEAST, self._ratio * self.mean))

    def observe(self, norm: float) -> None:
        """norm: before the cut, of a gradient that was applied. A norm of 0, as where all rewards are equal, is ignored, and
        so is one that is not finite: it says nothing about the next."""
        if 0.0 < norm < math.inf:
            cut = min(norm, self.now)
            self.mean = cut if self.mean is None else DECAY * self.mean + (1.0 - DECAY) * cut
