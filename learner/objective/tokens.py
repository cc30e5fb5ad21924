"""What an objective sees: response tokens of whole sequences on one flat axis, only those that count."""

from dataclasses import dataclass

from torch import Tensor

from learner.objective.ratios import over_tokens, segment_mean


@dataclass(frozen=True, slots=True)
class Tokens:
    """n sequences with T tokens that count. Masked tokens were taken out before, so no objective has a mask.

    Log-probs are float32 (float64 in tests), in nats, of the sampled token at the sampling temperature.
    """

    logp: Tensor
    """[T], current policy. This, `entropy`, `hidden` and `predicted_hidden` are the only fields that carry a gradient."""
    current_logp: Tensor
    """[T], the same numbers without gradient: for everything under a stop-gradient."""
    proximal_logp: Tensor
    """[T], the weights that the batch began with."""
    behavior_logp: Tensor
    """[T], the policy that sampled the token, with the engine's numerics."""
    reference_logp: Tensor
    """[T], the reference policy; the current policy's where no reference is needed."""
    teacher_logp: Tensor
    """[K, T], one row a teacher, in the order of [[learner.teachers]]."""
    entropy: Tensor
    """[T], entropy of the current policy's next token, nats, with gradient; 0 unless the objective needs it."""
    hidden: Tensor
    """float32 [n, H], mean last hidden state of each sequence, with gradient unless a predictor is trained; H may be 0."""
    predicted_hidden: Tensor
    """float32 [n, H], what the predictor makes of it, with gradient; H is 0 unless the objective trains a predictor."""
    reference_hidden: Tensor
    """float32 [n, H], mean hidden state of each sequence under the reference policy, with the objective's noise."""
    advantage: Tensor
    """[T], the advantage of the token's sequence; of its turn, with learner.advantage.turns."""
    lag_steps: Tensor
    """int64 [T], policy versions between sampling and the batch."""
    group: Tensor
    """int64 [n], index of each sequence's group in the optimizer step."""
    lengths: Tensor
    """int64 [n], tokens that count in each sequence, summing to T. A sequence may have none."""
    statistics: Tensor
    """What the objective's own `statistics` computed from the whole optimizer step; empty where it has none."""

    def sequence_mean(self, values: Tensor) -> Tensor:
        """Mean of each sequence: [T] to [n], or [T, H] to [n, H]; 0 for a sequence without tokens."""
        return segment_mean(values, self.lengths)

    def spread(self, values: Tensor) -> Tensor:
        """Each sequence's number on all of its tokens: [n] to [T]."""
        return over_tokens(values, self.lengths, len(self.logp))
