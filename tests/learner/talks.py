"""Groups of conversations with random tokens, and what a plain model says about the tokens that the policy sampled."""

from collections.abc import Iterator

import msgspec
import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from services.wire.codec import Array
from services.wire.score import ScoredGroup
from services.wire.trajectory import Trajectory, Turn
from tests.learner.tiny import VOCABULARY, scored_group


def talks(index: int, turns: list[list[Turn]], *, prompt: list[int] | None = None, **facts: object) -> ScoredGroup:
    """A group with a conversation for each list of turns; the policy's tokens are drawn."""
    draw = np.random.default_rng([7, index])
    responses = [draw.integers(0, VOCABULARY, sum(turn.tokens for turn in own)).tolist() for own in turns]
    rewards = [float(i % 2) for i in range(len(turns))]
    group = scored_group(index, rewards=rewards, prompt=prompt, responses=responses, **facts)  # type: ignore[arg-type]
    talked = tuple(
        msgspec.structs.replace(one, turns=tuple(own)) for one, own in zip(group.group.trajectories, turns, strict=True)
    )
    return msgspec.structs.replace(group, group=msgspec.structs.replace(group.group, trajectories=talked))


def turn(tokens: int, given: list[int] | None = None, **facts: object) -> Turn:
    return Turn(tokens=tokens, given=Array.of(given or [], "<i4"), **facts)  # type: ignore[arg-type]


def contexts(prompt: list[int], trajectory: Trajectory) -> Iterator[tuple[list[int], list[int]]]:
    """Each sequence of a conversation as the engine saw it: its tokens, and where among them the policy's are."""
    said, at = trajectory.token_ids.numpy().tolist(), 0
    tokens, sampled = list(prompt), list[int]()
    for turn in trajectory.turns or (Turn(tokens=len(said), given=Array.of([], "<i4")),):
        if turn.restarts:
            if sampled:
                yield tokens, sampled
            tokens, sampled = [], []
        tokens += turn.given.numpy().tolist()
        sampled += range(len(tokens), len(tokens) + turn.tokens)
        tokens += said[at : at + turn.tokens]
        at += turn.tokens
    yield tokens, sampled


def logp_of_the_whole(model: PreTrainedModel, prompt: list[int], trajectory: Trajectory) -> Tensor:
    """float32 [L]: of each token that the policy sampled, by a forward over each whole sequence of the conversation."""
    found = []
    for tokens, sampled in contexts(prompt, trajectory):
        log_p = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        found += [log_p[at - 1, tokens[at]] for at in sampled]
    return torch.stack(found)
