"""How far the engine's log-probs may be from the learner's: bounds by dtype, and an alarm on tokens that were just sampled. Pure.

Two things are compared. The probes, fixed sequences: mean, quantile and largest of their differences after each broadcast. And
every token that the learner's own current weights have sampled: the mean KL of the step (engine_mismatch_kl), which also shows
what a short probe cannot. What is rounding is measured at the start: before the first swap a replica scores the probes with the
weights that it has read from disk, and the learner did the same; that difference is the two programs' kernels and nothing else.
Where training lets logits grow, so does their rounding (a logit of 16 to 32 is off by up to 0.063 in bfloat16): the probes' bound
follows what was accepted since, up to MOST.
"""

from typing import Literal

from services.config.model import Dtype
from services.config.weights import WeightsConfig
from services.wire.weights import Gap

MOST: dict[Dtype, Gap] = {"float32": Gap(1e-3, 1e-3, 1e-3), "bfloat16": Gap(0.12, 0.3, 1.0)}
"""A larger difference of a probe is not rounding, whatever was measured. Kernels that round every product to bfloat16 differ by
0.05 nats in the root mean square, by 0.11 at nineteen in twenty tokens, and by 0.5 at one token in thousands; twice as much in
the worst models seen."""
LEAST: dict[Dtype, Gap] = {"float32": Gap(1e-3, 1e-3, 1e-3), "bfloat16": Gap(0.02, 0.05, 1.0)}
"""A smaller difference of a probe is accepted, whatever was measured: training moves weights, and rounding with them. The largest
difference is that of one token, which says little about the next one: its bound is always wide."""
ROOM = 3.0
"""The bounds on mean and quantile are this many times what engine and learner are known to differ by."""
SAME_NATS: dict[Dtype, float] = {"float32": 1e-4, "bfloat16": 0.01}
"""Most that the engine's own log-probs may move when weights that it has read from disk are sent to it: same kernels, same
weights. Only their places in memory differ."""
MOST_KL_NATS: dict[Dtype, float] = {"float32": 1e-4, "bfloat16": 0.16}
"""No higher mean KL is accepted, whatever was measured."""
LEAST_KL_NATS: dict[Dtype, float] = {"float32": 1e-4, "bfloat16": 0.01}
"""A mean KL below it is accepted: tokens of the bundled example give 1e-13 to 1e-6 in float32, and models with recurrent layers
in packed rows gave 0.08 (docs/log.md)."""

CAUSES = (
    "Likely causes, in order: layers that engine and learner compute differently (rope or attention windows that depend on "
    "length, a state carried from one sequence of a packed row to the next: learner.packed_rows = false); weights that the "
    "engine knows under other names; rollout.sampling settings that the engine changed; versions or dtypes of the two that do "
    "not go together, see `ratchet doctor`"
)


def gap_bound(weights: WeightsConfig, dtype: Dtype, rounding: Gap | None) -> Gap:
    """Largest difference of a probe that is accepted. rounding: the largest that is known to be no more, None if none is.

    weights.max_gap_nats, where it is set, takes the place of all three: no token may differ by more.
    """
    if weights.max_gap_nats is not None:
        return Gap(weights.max_gap_nats, weights.max_gap_nats, weights.max_gap_nats)
    most, least = MOST[dtype], LEAST[dtype]
    if rounding is None:
        return most
    return Gap(
        min(most.mean_nats, max(least.mean_nats, ROOM * rounding.mean_nats)),
        min(most.high_nats, max(least.high_nats, ROOM * rounding.high_nats)),
        most.largest_nats,
    )


def mismatch_bound(weights: WeightsConfig, dtype: Dtype, kernel_gap_nats: float | None) -> float:
    """Largest mean KL a token of fresh samples that is accepted, in nats. kernel_gap_nats: the largest at the start.

    The KL of a difference d is about d^2 / 2, and the mean of d^2 is well below the square of the largest.
    """
    if weights.max_mismatch_nats is not None:
        return weights.max_mismatch_nats
    return max(LEAST_KL_NATS[dtype], min(MOST_KL_NATS[dtype], (kernel_gap_nats or 0.0) ** 2))


Verdict = Literal["unknown", "accepted", "high", "lasting"]
"""unknown: no token of the step was fresh. lasting: high for weights.mismatch_steps steps in a row."""


class MismatchAlarm:
    """Counts steps whose fresh tokens say that engine and learner differ. Not saved: each start of the learner counts again."""

    def __init__(self, weights: WeightsConfig, dtype: Dtype) -> None:
        self._weights = weights
        self._dtype: Dtype = dtype
        self._high_in_a_row = 0
        self.bound_nats = mismatch_bound(weights, dtype, None)
        """The bound that the last step was held against."""

    def observe(self, mismatch_kl: float | None, kernel_gap_nats: float | None) -> Verdict:
        """mismatch_kl: engine_mismatch_kl of a step, None where no token was fresh; one that is not a number is high."""
        self.bound_nats = mismatch_bound(self._weights, self._dtype, kernel_gap_nats)
        if mismatch_kl is None:
            return "unknown"
        if mismatch_kl <= self.bound_nats:
            self._high_in_a_row = 0
            return "accepted"
        self._high_in_a_row += 1
        return "lasting" if self._high_in_a_row >= self._weights.mismatch_steps else "high"

    def words(self, mismatch_kl: float | None) -> str:
        """What the last step has shown, in a sentence for the log or the error."""
        return (
            f"tokens sampled under the learner's own current weights have other log-probs in the engine: KL {mismatch_kl:.3g} "
            f"nats a token, and rounding in {self._dtype} explains at most {self.bound_nats:.2g} "
            f"({self._high_in_a_row} of {self._weights.mismatch_steps} steps in a row, weights.mismatch_steps). Every "
            f"importance ratio is off by that. {CAUSES}. If you know that it is rounding, raise weights.max_mismatch_nats"
        )
