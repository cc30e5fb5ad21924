"""The runs of tokens that a piece of a row is made of: what follows a prompt, and what begins again within a conversation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch.pieces import Piece
from learner.batch.rows import Branch
from learner.batch.step_batch import StepBatch


@dataclass(frozen=True, slots=True)
class Strand:
    """Tokens that attend to each other, and which of them the policy sampled."""

    branch: Branch
    token_index: list[Tensor]
    """int64 for each token of each end: its place on the batch's flat axis T, or -1 for an environment's token, which is read
    and not predicted."""


def strands_of(batch: StepBatch, piece: Piece) -> list[Strand]:
    """First the prompt with all that follows it, then what begins again within one of the sequences, in order."""
    first: list[tuple[Tensor, Tensor]] = []
    again: list[Strand] = []
    for i in piece:
        behind_prompt, *others = _beginnings(batch, i)
        first.append(behind_prompt[1:])
        again += [Strand(Branch(stem, [tokens]), [index]) for stem, tokens, index in others]
    behind = Branch(batch.prompt_ids[piece[0]], [tokens for tokens, _ in first])
    return [Strand(behind, [index for _, index in first]), *again]


def _beginnings(batch: StepBatch, i: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Each beginning of a sequence: (stem, tokens behind it, their places on the axis T)."""
    start, end = batch.cu_seqlens[i : i + 2].tolist()
    if not batch.read[i]:
        return [(batch.prompt_ids[i], batch.response_ids[start:end], torch.arange(start, end))]
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    stem, tokens, index, reached = batch.prompt_ids[i], list[Tensor](), list[Tensor](), start

    def sampled(until: int) -> None:
        nonlocal reached
        tokens.append(batch.response_ids[reached:until])
        index.append(torch.arange(reached, until))
        reached = until

    for read in batch.read[i]:
        sampled(start + read.before)
        if read.restarts:
            found.append((stem, torch.cat(tokens), torch.cat(index)))
            stem = read.token_ids
            tokens.clear()
            index.clear()
        else:
            tokens.append(read.token_ids)
            index.append(torch.full_like(read.token_ids, -1))
    sampled(end)
    return [*found, (stem, torch.cat(tokens), torch.cat(index))]
