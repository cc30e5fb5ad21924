"""What an objective sees: response tokens of whole sequences on one flat axis, only those that count."""

from dataclasses import dataclass

from torch import Tensor

from learner.objective.ratios import segment_mean, segment_sum


@dataclass(frozen=True, slots=True)
class Tokens:
    """n sequences with T tokens that count; what is masked was taken out before, so no objective has a mask.

    Log-probs are float32 (float64 in tests), nats, of the sampled token at the sampling temperature.
    """

    logp: Tensor
    """[T], current policy. It and `hidden` are the only fields that carry a gradient."""
    current_logp: Tensor
    """[T], the same numbers without it: for everything under a stop-gradient."""
    proximal_logp: Tensor
    """[T], the weights that the batch began with."""
    behavior_logp: Tensor
    """[T], what sampled, with the engine's numerics."""
    reference_logp: Tensor
    """[T]; the current policy where no reference is needed."""
    teacher_logp: Tensor
    """[K, T]."""
    hidden: Tensor
    """float32 [T, H], last hidden states with gradient; H = 0 unless the objective needs them."""
    reference_hidden: Tensor
    """float32 [n, H], mean of a sequence's under the reference policy."""
    advantage: Tensor
    """[T], of its sequence."""
    lag_steps: Tensor
    """int64 [T]: versions between sampling and the batch."""
    lengths: Tensor
    """int64 [n], summing to T. A sequence may have no token that counts."""
    statistics: Tensor
    """What the objective's own `statistics` says of the whole optimizer step; empty for most."""

    def sequence_sum(self, values: Tensor) -> Tensor:
        """[n]."""
        return segment_sum(values, self.lengths)

    def sequence_mean(self, values: Tensor) -> Tensor:
        """[n] or [n, H]; 0 for a sequence without tokens."""
        return segment_mean(values, self.lengths)

    def spread(self, values: Tensor) -> Tensor:
        """A number a sequence to its tokens: [n] to [T]."""
        return values.repeat_interleave(self.lengths)
