"""How long a gradient may be: `max_grad_norm`, and at most a multiple of what the recent ones were.

Adam divides by a root mean square of recent gradients. Where nearly all rewards of a step are equal, as late in a run, they
are small; the first long one then moves every weight by most of the learning rate for some ten steps, by momentum, and the
samples that would show it arrive `lag` steps later. A beta2 near 1 remembers longer gradients for longer; the limit is for
the one that comes when they are forgotten.
ZClip (2504.02507) and AutoClip (2007.14469) cut at a z-score and at a percentile of recent norms; a plain multiple of their
mean has no statistics to settle and is ours. What it does at lag: docs/benchmarks.md.
"""

from services.config.learner import OptimizerConfig

DECAY = 0.9
"""Of the mean: some ten optimizer steps, the length of Adam's momentum."""
LEAST = 1e-5
"""No cut below this norm: torch and DeepSpeed clip norm + 1e-6, and so would shrink shorter gradients within the limit."""


class GradientLimit:
    """The same on every rank, because the norms are."""

    def __init__(self, settings: OptimizerConfig, mean: float | None = None) -> None:
        """mean: as a checkpoint says; None before the first gradient."""
        self._largest, self._ratio = settings.max_grad_norm, settings.max_grad_norm_ratio
        self.mean = mean
        """Of norms after the cut, so that a long gradient raises it by (1 - DECAY) (ratio - 1) of itself at most."""

    @property
    def now(self) -> float:
        """Euclidean norm, over all parameters and ranks, that the next gradient is cut to where it is longer."""
        if self.mean is None or self._ratio == 0.0:
            return self._largest
        return min(self._largest, max(LEAST, self._ratio * self.mean))

    def observe(self, norm: float) -> None:
        """The norm, before the cut, of a gradient that was applied. One of 0, as where all rewards are equal, says nothing."""
        if norm > 0.0:
            cut = min(norm, self.now)
            self.mean = cut if self.mean is None else DECAY * self.mean + (1.0 - DECAY) * cut
