"""Sums token losses into the step's loss, over denominators of the whole step.

The sum over micro-batches and ranks is therefore the loss, however the step was packed. Rejecting a token never changes the
denominator of other tokens, and a sequence without tokens that count contributes nothing.
"""

import torch
from torch import Tensor

from learner.objective.ratios import over_tokens, segment_sum
from services.config.objectives.base import Aggregation


def token_scale(
    aggregation: Aggregation,
    mask: Tensor,
    lengths: Tensor,
    *,
    step_sequences: int,
    step_tokens: int,
    constant_tokens: int | None = None,
) -> Tensor:
    """Factor on each token's loss; 0 where the token does not count. float32 [T].

    sequence_mean: 1 / (B L_i), where L_i is the number of tokens of the sequence that count. token_mean: 1 / (tokens of the step
    that count). constant: 1 / (B constant_tokens), independent of the sequence's length (Dr. GRPO, arXiv:2503.20783).
    mask: bool [T]; lengths: int64 [n], masked tokens included. step_sequences (B), step_tokens: over all micro-batches and ranks.
    """
    if aggregation == "token_mean":
        return mask.float() / max(1, step_tokens)
    if aggregation == "constant":
        if constant_tokens is None:
            raise ValueError('aggregation = "constant" needs constant_tokens')
        return mask.float() / (constant_tokens * max(1, step_sequences))
    counted = segment_sum(mask.float(), lengths)
    per_sequence = (counted.clamp(min=1.0) * max(1, step_sequences)).reciprocal()
    per_token = over_tokens(per_sequence, lengths, len(mask))
    return torch.where(mask, per_token, torch.zeros_like(per_token))


def aggregate(token_loss: Tensor, scale: Tensor) -> Tensor:
    """Sum of token_loss x scale over the tokens whose scale is not 0. Both [T]; float32 [], gradient through token_loss."""
    counts = scale != 0
    return (torch.where(counts, token_loss, torch.zeros_like(token_loss)) * scale).sum()
