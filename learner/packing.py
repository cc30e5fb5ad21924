"""Sequences into rows under a token budget, rows into micro-batches, micro-batches onto ranks.

The step does not depend on any of it: positions restart with each sequence, none attends to another, and every sum
has a denominator of the whole step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch import StepBatch
from services.errors import InputError


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """R rows of S tokens, and where among them the M response tokens of n whole sequences are predicted. On the CPU.

    A filler has no sequences (n = 0): it makes ranks equal in number of backwards and adds nothing.
    """

    token_ids: Tensor
    """int64 [R, S]."""
    position_ids: Tensor
    """int64 [R, S]: restarts at 0 with each sequence."""
    head_index: Tensor
    """int64 [M]: position in the flattened [R * S] whose hidden state predicts the response token."""
    target_ids: Tensor
    """int64 [M]: the response token predicted there."""
    temperature: Tensor
    """float32 [M]."""
    token_index: Tensor
    """int64 [M]: place of the response token on the batch's flat axis T."""
    sequence_index: Tensor
    """int64 [n]: which sequences of the batch these are, in the order of their tokens."""
    lengths: Tensor
    """int64 [n]: response tokens of each."""


def first_fit_decreasing(lengths: list[int], budget: int) -> list[list[int]]:
    """Rows of indices whose lengths sum to at most budget. Deterministic: ties by index, longest first.

    Raises InputError when one alone is longer than the budget.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if order and lengths[order[0]] > budget:
        raise InputError(
            f"a sequence of {lengths[order[0]]} tokens does not fit a row of learner.row_tokens = {budget}; raise it"
        )
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


def pack(
    batch: StepBatch, *, row_tokens: int, rows_per_micro_batch: int, rank: int = 0, world_size: int = 1
) -> list[MicroBatch]:
    """This rank's micro-batches: as many on every rank, fillers at the end. Rows go round the ranks in turn."""
    responses = batch.cu_seqlens.diff().tolist()
    rows = first_fit_decreasing([len(p) + r for p, r in zip(batch.prompt_ids, responses, strict=True)], row_tokens)
    most = -(-len(rows) // world_size)
    mine = rows[rank::world_size]
    count = -(-most // rows_per_micro_batch)
    chunks = [mine[i * rows_per_micro_batch : (i + 1) * rows_per_micro_batch] for i in range(count)]
    return [_micro_batch(batch, chunk) if chunk else filler() for chunk in chunks]


def one_each(batch: StepBatch, *, rank: int = 0, world_size: int = 1) -> list[MicroBatch]:
    """This rank's sequences, a micro-batch each: groups whole and in order, going round the ranks in turn."""
    members = [(batch.group == g).nonzero()[:, 0].tolist() for g in range(int(batch.group.max()) + 1)]
    shares = [[i for group in members[r::world_size] for i in group] for r in range(world_size)]
    mine, most = shares[rank], max(map(len, shares))
    return [_micro_batch(batch, [[i]]) for i in mine] + [filler()] * (most - len(mine))


def filler() -> MicroBatch:
    """One row that predicts one token, which belongs to no sequence."""
    zero, none = torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    return MicroBatch(
        token_ids=torch.zeros(1, 2, dtype=torch.int64),
        position_ids=torch.arange(2)[None],
        head_index=zero,
        target_ids=zero,
        temperature=torch.ones(1),
        token_index=none,
        sequence_index=none,
        lengths=none,
    )


def _micro_batch(batch: StepBatch, rows: list[list[int]]) -> MicroBatch:
    starts = batch.cu_seqlens.tolist()
    sequences = [i for row in rows for i in row]
    totals = {i: len(batch.prompt_ids[i]) + starts[i + 1] - starts[i] for i in sequences}
    width = max(sum(totals[i] for i in row) for row in rows)
    # Positions that go on into the padding keep a row of one sequence free of a mask; packed rows pad with zeros.
    one_each = all(len(row) == 1 for row in rows)
    token_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    position_ids = torch.arange(width).repeat(len(rows), 1) if one_each else torch.zeros_like(token_ids)
    head: list[Tensor] = []
    for r, row in enumerate(rows):
        at = 0
        for i in row:
            prompt, response = batch.prompt_ids[i], batch.response_ids[starts[i] : starts[i + 1]]
            split, end = at + len(prompt), at + totals[i]
            token_ids[r, at:split] = prompt
            token_ids[r, split:end] = response
            position_ids[r, at:end] = torch.arange(totals[i])
            head.append(torch.arange(r * width + split - 1, r * width + end - 1))
            at = end
    token_index = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in sequences])
    lengths = torch.tensor([starts[i + 1] - starts[i] for i in sequences], dtype=torch.int64)
    sequence_index = torch.tensor(sequences, dtype=torch.int64)
    return MicroBatch(
        token_ids=token_ids,
        position_ids=position_ids,
        head_index=torch.cat(head),
        target_ids=batch.response_ids[token_index],
        temperature=batch.temperature[sequence_index].repeat_interleave(lengths),
        token_index=token_index,
        sequence_index=sequence_index,
        lengths=lengths,
    )
