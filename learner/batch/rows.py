"""Which sequences share a row, and which groups a micro-batch or a rank: lengths in, indices out."""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from services.errors import InputError


def first_fit_decreasing(lengths: list[int], budget: int, *, share: bool = True) -> list[list[int]]:
    """Rows of indices whose lengths sum to at most budget. Deterministic: longest first, ties by index.

    share: whether a row may hold several.

    Raises InputError when a single length exceeds the budget.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if order and lengths[order[0]] > budget:
        raise InputError(
            f"a sequence of {lengths[order[0]]} tokens does not fit a row of learner.row_tokens = {budget}; raise it"
        )
    if not share:
        return [[i] for i in order]
    rows: list[list[int]] = []
    room: list[int] = []
    open_from = 0  # rows before it cannot take the shortest sequence
    shortest = lengths[order[-1]] if order else 0
    for i in order:
        while open_from < len(rows) and room[open_from] < shortest:
            open_from += 1
        row = next((r for r in range(open_from, len(rows)) if room[r] >= lengths[i]), None)
        if row is None:
            rows.append([])
            room.append(budget)
            row = len(rows) - 1
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows


def spread(sizes: list[int], parts: int) -> list[list[int]]:
    """Indices in this many parts with nearly equal sums: longest first, each to the part that has least. Deterministic."""
    shares: list[list[int]] = [[] for _ in range(parts)]
    least = [(0, part) for part in range(parts)]
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size, part = heapq.heappop(least)
        shares[part].append(i)
        heapq.heappush(least, (size + sizes[i], part))
    return shares


def lay_out(rows: Sequence[Sequence[tuple[Tensor, int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids int64 [R, S], positions int64 [R, S], and where in the flattened [R * S] each predicted token is predicted.

    rows: sequences as their token ids, int64, and the number of those at the beginning that are not predicted, at least 1.
    Positions restart with each sequence. Padding is at the end of a row, with token id 0.
    """
    width = max(sum(len(ids) for ids, _ in row) for row in rows)
    token_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    # Positions that go on into the padding keep a row of one sequence free of a mask; packed rows pad with zeros.
    one_each = all(len(row) == 1 for row in rows)
    position_ids = torch.arange(width).repeat(len(rows), 1) if one_each else torch.zeros_like(token_ids)
    head_index: list[Tensor] = []
    for r, row in enumerate(rows):
        at = 0
        for ids, given in row:
            end = at + len(ids)
            token_ids[r, at:end] = ids
            position_ids[r, at:end] = torch.arange(len(ids))
            head_index.append(torch.arange(r * width + at + given - 1, r * width + end - 1))
            at = end
    return token_ids, position_ids, torch.cat(head_index)
