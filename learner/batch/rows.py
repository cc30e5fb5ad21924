"""Which sequences share a row, and which groups a micro-batch or a rank: lengths in, indices out."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.errors import InputError


@dataclass(frozen=True, slots=True)
class Spans:
    """The flattened [R * S] of some rows as runs of tokens, one behind the other and none left out.

    A token attends to itself and to the tokens before it in its own span, and to the whole of the span that its own continues.
    """

    lengths: tuple[int, ...]
    """Tokens of each span; their sum is R * S."""
    continues: tuple[int | None, ...]
    """Index of the span that comes before it, as a shared prompt does before each response; None for one that stands alone."""
    is_padding: tuple[bool, ...]
    """Whether its tokens are padding, which nothing reads."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Sequences that begin with the same tokens."""

    stem: Tensor
    """int64 [P], P >= 1: the tokens they begin with, which are not predicted."""
    ends: Sequence[Tensor]
    """int64 each, one or more: what follows in each of them, which is predicted."""

    @property
    def tokens(self) -> int:
        return len(self.stem) + sum(map(len, self.ends))


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


def lay_out(rows: Sequence[Sequence[Branch]]) -> tuple[Tensor, Tensor, Tensor, Spans]:
    """Token ids int64 [R, S], positions int64 [R, S], where in the flattened [R * S] each predicted token is predicted, and
    which tokens attend to which.

    Positions count from the beginning of each sequence. A branch of several ends has its stem once in the row, and the first
    token of each end is predicted at the stem's last. Padding is at the end of a row, with token id 0.
    """
    width = max(sum(branch.tokens for branch in row) for row in rows)
    token_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    # Positions that go on into the padding keep a row of one sequence free of a mask; packed rows pad with zeros.
    one_each = all(len(row) == 1 and len(row[0].ends) == 1 for row in rows)
    position_ids = torch.arange(width).repeat(len(rows), 1) if one_each else torch.zeros_like(token_ids)
    head_index: list[Tensor] = []
    spans: list[tuple[int, int | None, bool]] = []
    for r, row in enumerate(rows):
        at = 0
        for branch in row:
            given, whole = len(branch.stem), torch.cat([branch.stem, *branch.ends])
            token_ids[r, at : at + len(whole)] = whole
            position_ids[r, at : at + given] = torch.arange(given)
            last, shared = r * width + at + given - 1, len(spans)
            alone = len(branch.ends) == 1
            spans.append((len(whole) if alone else given, None, False))
            at += given
            for end in branch.ends:
                position_ids[r, at : at + len(end)] = torch.arange(given, given + len(end))
                predicts = torch.arange(r * width + at - 1, r * width + at + len(end) - 1)
                predicts[:1] = last
                head_index.append(predicts)
                if not alone and len(end):
                    spans.append((len(end), shared, False))
                at += len(end)
        if at < width:
            spans.append((width - at, None, True))
    return token_ids, position_ids, torch.cat(head_index), Spans(*zip(*spans, strict=True))
