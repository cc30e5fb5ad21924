"""Rewards and advantages of single turns: for conversations, in which more than the end is judged. Pure, in float64.

A conversation's policy tokens fall into turns, one after the other; a turn is known by where it ends. Nothing in a run calls
these functions yet: rewards of turns have to travel with trajectories first.
"""

import torch
from torch import Tensor

from learner.objective.baseline import group_mean


def turn_returns(reward: Tensor, sequence: Tensor, discount: float = 1.0) -> Tensor:
    """The discounted sum of the rewards of each turn and those after it in its conversation. float64 [S].

    G_s = r_s + discount x G_(s + 1). reward: float64 [S], one for each turn, conversation after conversation, in order.
    sequence: int64 [S], the conversation of each turn, not decreasing. discount: 0..1. Raises ValueError otherwise.
    """
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"a discount lies between 0 and 1, and {discount} does not")
    if len(sequence) and bool((sequence.diff() < 0).any()):
        raise ValueError("the turns of a conversation must stand together, in order")
    returns = reward.double().clone()
    for place in range(len(returns) - 2, -1, -1):
        if sequence[place] == sequence[place + 1]:
            returns[place] += discount * returns[place + 1]
    return returns


def turn_advantages(value: Tensor, sequence: Tensor, group: Tensor) -> Tensor:
    """The value of each turn minus the mean of the turns with the same number in its group. float64 [S].

    A turn that no other conversation of its group has reached has an advantage of 0: there is nothing to compare it with.
    Turn-level credit within a group as in arXiv:2505.11821 (our reading; it is not divided by a deviation). value: float64
    [S], such as `turn_returns`. sequence: int64 [S], the conversation of each turn, not decreasing. group: int64 [N], the group
    of each conversation.
    """
    if not len(value):
        return value.double()
    _, counts = torch.unique_consecutive(sequence, return_counts=True)
    number = torch.cat([torch.arange(int(count)) for count in counts])  # of the turn within its conversation, from 0
    keys = group[sequence] * (int(number.max()) + 1) + number
    _, cell = torch.unique(keys, return_inverse=True)
    values = value.double()
    alone = torch.bincount(cell)[cell] == 1
    return torch.where(alone, torch.zeros_like(values), values - group_mean(values, cell)[cell])


def with_outcome(turn_advantage: Tensor, outcome_advantage: Tensor, sequence: Tensor, weight: float) -> Tensor:
    """A_turn + weight x A_outcome for each turn (arXiv:2505.11821, our reading). float64 [S].

    turn_advantage: float64 [S]. outcome_advantage: [N], of whole conversations. sequence: int64 [S].
    """
    return turn_advantage.double() + weight * outcome_advantage.double()[sequence]


def spread_over_tokens(value: Tensor, ends: Tensor) -> Tensor:
    """Each turn's value at each of its tokens. float32 [T].

    value: [S]. ends: int64 [S], where each turn ends on the flat axis of all policy tokens, not decreasing; the last is T. A turn
    begins where the one before it ends. Raises ValueError when one ends before it begins.
    """
    tokens = torch.diff(ends, prepend=ends.new_zeros(1))
    if bool((tokens < 0).any()):
        raise ValueError("turns must end one after the other")
    return value.float().repeat_interleave(tokens)
