"""What an environment said within a conversation, as tensors: where it stands among the tokens that the policy sampled."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from services.wire.codec import Array
from services.wire.trajectory import Trajectory


@dataclass(frozen=True, slots=True)
class Read:
    """Tokens of an environment within a sequence: attended to, never predicted."""

    before: int
    """Response tokens of the sequence that stand before it."""
    token_ids: Tensor
    """int64 [G], G >= 1."""
    restarts: bool
    """Whether the sequence begins again with them: what follows attends to nothing before them."""


def beginning(trajectory: Trajectory, prompt: Tensor) -> tuple[Tensor, tuple[Read, ...]]:
    """The tokens that the sequence begins with, and what is read within it.

    A conversation that begins with a history of its own has that for a prompt.
    """
    read: list[Read] = []
    before = 0
    for turn in trajectory.turns:
        if before == 0 and turn.restarts:
            prompt = ids(turn.given)
        elif len(turn.given):
            read.append(Read(before, ids(turn.given), turn.restarts))
        before += turn.tokens
    return prompt, tuple(read)


def per_token(trajectory: Trajectory) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """(number of the turn of each token that the policy sampled, from 0; what the environment gave for that turn). int64 [L],
    float64 [L]; both 0 in a response to the prompt alone."""
    if not trajectory.turns:
        return np.zeros(len(trajectory), dtype=np.int64), np.zeros(len(trajectory))
    tokens = [turn.tokens for turn in trajectory.turns]
    rewards = [turn.reward or 0.0 for turn in trajectory.turns]
    return np.arange(len(tokens)).repeat(tokens), np.array(rewards, dtype=np.float64).repeat(tokens)


def ids(values: Array) -> Tensor:
    """int64 of as many."""
    return torch.tensor(values.numpy(), dtype=torch.int64)
