"""Which responses of a group lie behind one copy of their prompt, and which pieces of rows that makes."""

from collections.abc import Callable

import torch

from learner.batch.rows import first_fit_decreasing, spread
from learner.batch.step_batch import StepBatch

Piece = list[int]
"""Sequences that lie side by side in a row: one, or several of a group that share their prompt."""
Plan = list[list[list[list[Piece]]]]
"""Pieces of each row of each micro-batch of each rank; a filler has no rows."""


def ways_to_share(batch: StepBatch, row_tokens: int, *, share_prompts: bool) -> list[list[Piece]]:
    """All sequences in pieces, in each way that is worth a try: first those that share nothing.

    A large piece saves more prompts, and leaves more of a row empty.
    """
    ways: list[list[Piece]] = [[[i] for i in range(len(batch))]]
    for size in (row_tokens // 4, row_tokens // 2, row_tokens) if share_prompts else ():
        pieces = _pieces(batch, size)
        if pieces not in ways:  # groups that a quarter of a row holds are whole in each
            ways.append(pieces)
    return ways


def _pieces(batch: StepBatch, most_tokens: int) -> list[Piece]:
    """All sequences, in pieces that have at most `most_tokens` where they have several sequences."""
    responses = _tokens_behind_prompt(batch)
    pieces: list[Piece] = []
    for members in members_of(batch):
        prompt = batch.prompt_ids[members[0]]
        room = most_tokens - len(prompt)
        share = [i for i in members if responses[i] <= room and torch.equal(batch.prompt_ids[i], prompt)]
        pieces += [[share[i] for i in piece] for piece in first_fit_decreasing([responses[i] for i in share], room)]
        pieces += [[i] for i in members if i not in share]
    return pieces


def piece_tokens(batch: StepBatch) -> Callable[[Piece], int]:
    """The function that says how many tokens a piece has in its row."""
    responses = _tokens_behind_prompt(batch)
    prompts = list(map(len, batch.prompt_ids))  # once: the length of a tensor takes long for a number
    return lambda piece: prompts[piece[0]] + sum(responses[i] for i in piece)


def _tokens_behind_prompt(batch: StepBatch) -> list[int]:
    """Tokens of each sequence in its row but for the prompt: the response, and what an environment said within it."""
    responses: list[int] = batch.cu_seqlens.diff().tolist()
    return [own + sum(len(one.token_ids) for one in read) for own, read in zip(responses, batch.read, strict=True)]


def rows_of_pieces(
    pieces: list[Piece], tokens: Callable[[Piece], int], row_tokens: int, *, share_rows: bool
) -> list[list[Piece]]:
    """Rows of pieces, with at most `row_tokens` tokens each. share_rows: whether a row may hold several pieces."""
    rows = first_fit_decreasing([tokens(piece) for piece in pieces], row_tokens, share=share_rows)
    return [[pieces[i] for i in row] for row in rows]


def even_rows(
    pieces: list[Piece], tokens: Callable[[Piece], int], row_tokens: int, most_rows: int, *, share_rows: bool
) -> list[list[Piece]] | None:
    """The pieces in as few rows as they take, filled evenly where that fits; None when they are more than `most_rows`."""
    rows = rows_of_pieces(pieces, tokens, row_tokens, share_rows=share_rows)
    if len(rows) > most_rows:
        return None
    if not share_rows:
        return rows
    lengths = [tokens(piece) for piece in pieces]
    even = spread(lengths, len(rows))  # less padding, since rows are as wide as the longest; it may not fit
    if max((sum(lengths[i] for i in row) for row in even), default=0) <= row_tokens:
        return [[pieces[i] for i in row] for row in even]
    return rows


def plan_tokens(plan: Plan, tokens: Callable[[Piece], int]) -> int:
    """Tokens of a plan on all ranks, with the padding, so that every rank chooses the same plan."""
    rows = [[sum(map(tokens, row)) for row in held] for on_rank in plan for held in on_rank]
    return sum(len(held) * max(held, default=0) for held in rows)


def members_of(batch: StepBatch) -> list[list[int]]:
    """Indices of the sequences of each group."""
    members: list[list[int]] = [[] for _ in range(int(batch.group.max()) + 1 if len(batch) else 0)]
    for i, g in enumerate(batch.group.tolist()):
        members[g].append(i)
    return members
