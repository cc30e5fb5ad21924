"""Advantages of single turns, for conversations in which more than the end is rewarded. Pure, in float64.

    A_i,k = (G_i,k - mean of G_j,k over the group) / sigma + weight x A_i,    G_i,k = r_i,k + discount x G_i,k+1

The mean is over the conversations j of the group that have a turn k; A_i is the advantage of the whole conversation. It is the
turn-level credit of arXiv:2505.11821 in our reading, which differs from it where a conversation has more than two turns:
what a turn earned includes what came of it later, and turns are compared with those of the same number.

A conversation's policy tokens fall into turns, one after the other; S counts the turns of all conversations.
"""

import torch
from torch import Tensor

from learner.objective.advantage import Normalize, deviation
from learner.objective.baseline import reward_sign
from services.config.advantage import AdvantageConfig


def token_turn_advantages(
    turn: Tensor, reward: Tensor, sequence: Tensor, group: Tensor, settings: AdvantageConfig
) -> Tensor:
    """The first term of A_i,k at each token of its turn. float32 [T]. settings: with the section `turns`.

    turn: int64 [T], number of the token's turn in its conversation, from 0. reward: float64 [T], what the environment gave for
    that turn. sequence: int64 [T], the token's conversation, not decreasing. group: int64 [N], the group of each conversation.
    """
    assert settings.turns is not None
    begins = torch.ones_like(turn, dtype=torch.bool)
    begins[1:] = (turn.diff() != 0) | (sequence.diff() != 0)
    first = begins.nonzero()[:, 0]
    returns = turn_returns(reward[first], sequence[first], settings.turns.discount)
    advantage = turn_advantages(returns, sequence[first], group, settings.normalize)
    return spread_over_tokens(advantage, torch.cat([first[1:], first.new_tensor([len(turn)])]))


def turn_returns(reward: Tensor, sequence: Tensor, discount: float = 1.0) -> Tensor:
    """The discounted sum of the rewards of each turn and those after it in its conversation. float64 [S].

    G_s = r_s + discount x G_(s + 1). reward: float64 [S], one for each turn, conversation after conversation, in order.
    sequence: int64 [S], the conversation of each turn, not decreasing. discount: 0..1. Raises ValueError otherwise.
    """
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"a discount lies between 0 and 1, and {discount} does not")
    number = turn_numbers(sequence)
    returns = reward.double().clone()
    for later in range(int(number.max()) if len(number) else 0, 0, -1):
        places = (number == later).nonzero()[:, 0]
        returns[places - 1] += discount * returns[places]
    return returns


def turn_numbers(sequence: Tensor) -> Tensor:
    """The number of each turn within its conversation, from 0. int64 [S].

    sequence: int64 [S], the conversation of each turn, not decreasing. Raises ValueError otherwise.
    """
    if bool((sequence.diff() < 0).any()):
        raise ValueError("the turns of a conversation must stand together, in order")
    _, counts = torch.unique_consecutive(sequence, return_counts=True)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    numbers: Tensor = torch.arange(len(sequence), device=sequence.device) - first
    return numbers


def turn_advantages(value: Tensor, sequence: Tensor, group: Tensor, normalize: Normalize = "none") -> Tensor:
    """(The value of each turn minus the mean of the turns with the same number in its group) / sigma. float64 [S].

    A turn that no other conversation of its group has reached has an advantage of 0: there is nothing to compare it with.
    value: float64 [S], such as `turn_returns`. sequence: int64 [S], the conversation of each turn, not decreasing. group: int64
    [N], the group of each conversation. normalize: which sigma of these turns, as `deviation` says.
    """
    if not len(value):
        return value.double()
    number, values = turn_numbers(sequence), value.double()
    _, cell, size = torch.unique(
        group[sequence] * (int(number.max()) + 1) + number, return_inverse=True, return_counts=True
    )
    mean = torch.zeros(len(size), dtype=torch.float64).index_add(0, cell, values) / size
    # Equal values have no advantage, whatever the rounding of their mean.
    compared = (size[cell] > 1) & (reward_sign(values, cell, len(size)) != 0)
    above = (values - mean[cell]) / deviation(values, cell, normalize, len(size))[cell]
    return torch.where(compared, above, torch.zeros_like(values))


def with_outcome(turn_advantage: Tensor, outcome_advantage: Tensor, weight: float) -> Tensor:
    """A_turn + weight x A_outcome of each token. float32 [T].

    turn_advantage: float32 [T], `token_turn_advantages`. outcome_advantage: float32 [T], of the whole conversations.
    """
    return turn_advantage + weight * outcome_advantage


def spread_over_tokens(value: Tensor, ends: Tensor) -> Tensor:
    """Each turn's value at each of its tokens. float32 [T].

    value: [S]. ends: int64 [S], where each turn ends on the flat axis of all policy tokens, not decreasing; the last is T. A turn
    begins where the one before it ends. Raises ValueError when one ends before it begins.
    """
    tokens = torch.diff(ends, prepend=ends.new_zeros(1))
    if bool((tokens < 0).any()):
        raise ValueError("turns must end one after the other")
    return value.float().repeat_interleave(tokens)
