"""Lay sequences into rows under a token budget, rows into micro-batches, and micro-batches onto ranks.

The step does not depend on any of it: positions restart with each sequence, no sequence attends to another (for models that
keep them apart: learner/engine/separation.py), and every sum has a denominator of the whole step. Where a micro-batch holds a
whole group, one forward says all that its sequences have to know about each other.
"""

from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch.rows import first_fit_decreasing, lay_out, spread
from learner.batch.step_batch import StepBatch
from learner.objective.ratios import over_tokens, segment_sum


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """R rows of S tokens, and where among them the M response tokens of n whole sequences are predicted. On the CPU.

    A filler has no sequences (n = 0): it adds nothing, and gives every rank the same number of backwards.
    """

    token_ids: Tensor
    """int64 [R, S]."""
    position_ids: Tensor
    """int64 [R, S]; restarts at 0 with each sequence."""
    head_index: Tensor
    """int64 [M]: position in the flattened [R * S] whose hidden state predicts the response token."""
    target_ids: Tensor
    """int64 [M]: the response token predicted there."""
    temperature: Tensor
    """float32 [M]."""
    counts: Tensor
    """bool [M]: whether the token counts (the batch's mask)."""
    token_index: Tensor
    """int64 [M]: index of the response token on the batch's flat axis T."""
    sequence_index: Tensor
    """int64 [n]: indices of these sequences in the batch, in the order of their tokens."""
    lengths: Tensor
    """int64 [n]: response tokens of each."""
    counted: Tensor
    """int64 [n]: those of them that count."""


def pack(
    batch: StepBatch,
    *,
    row_tokens: int,
    rows_per_micro_batch: int,
    share_rows: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> list[MicroBatch]:
    """This rank's micro-batches, equally many on every rank with fillers at the end. Rows are dealt to the ranks in turn.

    share_rows: whether a row may hold several sequences.
    """
    rows = first_fit_decreasing(_totals(batch), row_tokens, share=share_rows)
    most = -(-len(rows) // world_size)
    mine = rows[rank::world_size]
    count = -(-most // rows_per_micro_batch)
    chunks = [mine[i * rows_per_micro_batch : (i + 1) * rows_per_micro_batch] for i in range(count)]
    return [_micro_batch(batch, chunk) if chunk else filler() for chunk in chunks]


def pack_whole_groups(
    batch: StepBatch,
    *,
    row_tokens: int,
    rows_per_micro_batch: int,
    share_rows: bool = True,
    rank: int = 0,
    world_size: int = 1,
) -> list[MicroBatch] | None:
    """Like `pack`, with every group whole in one micro-batch; None when a group is more than a micro-batch holds.

    Each rank gets as few micro-batches as possible, filled evenly; they are dealt to the ranks in turn.
    """
    totals, members = _totals(batch), _members(batch)
    sizes = [sum(totals[i] for i in group) for group in members]

    def rows_of(groups: list[int]) -> list[list[int]] | None:
        """Rows of one micro-batch; None when there are too many."""
        held = [i for g in groups for i in members[g]]
        lengths = [totals[i] for i in held]
        rows = first_fit_decreasing(lengths, row_tokens, share=share_rows)
        if len(rows) > rows_per_micro_batch:
            return None
        if not share_rows:
            return [[held[i] for i in row] for row in rows]
        even = spread(lengths, len(rows))  # less padding, since rows are as wide as the longest; it may not fit
        if max((sum(lengths[i] for i in row) for row in even), default=0) <= row_tokens:
            rows = even
        return [[held[i] for i in row] for row in rows]

    def rows_on(turns: int) -> list[list[list[int]] | None]:
        """Rows of each micro-batch, given `turns` micro-batches a rank."""
        return [rows_of(groups) for groups in spread(sizes, turns * world_size)]

    most = -(-len(members) // world_size)  # every group alone
    if None in rows_on(most):
        return None
    fewest = -(-sum(sizes) // (row_tokens * rows_per_micro_batch * world_size))
    turns = fewest + bisect_left(range(fewest, most), True, key=lambda turns: None not in rows_on(turns))
    return [_micro_batch(batch, rows) if rows else filler() for rows in rows_on(turns)[rank::world_size]]


def one_each(batch: StepBatch, *, rank: int = 0, world_size: int = 1) -> list[MicroBatch]:
    """This rank's sequences, one in each micro-batch: groups whole and in order, dealt to the ranks in turn."""
    members = _members(batch)
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
        counts=torch.zeros(1, dtype=torch.bool),
        token_index=none,
        sequence_index=none,
        lengths=none,
        counted=none,
    )


def _totals(batch: StepBatch) -> list[int]:
    """Prompt and response tokens of each sequence."""
    responses = batch.cu_seqlens.diff().tolist()
    return [len(p) + r for p, r in zip(batch.prompt_ids, responses, strict=True)]


def _members(batch: StepBatch) -> list[list[int]]:
    """Indices of the sequences of each group."""
    members: list[list[int]] = [[] for _ in range(int(batch.group.max()) + 1)]
    for i, g in enumerate(batch.group.tolist()):
        members[g].append(i)
    return members


def _micro_batch(batch: StepBatch, rows: list[list[int]]) -> MicroBatch:
    starts = batch.cu_seqlens.tolist()
    sequences = [i for row in rows for i in row]
    token_index = torch.cat([torch.arange(starts[i], starts[i + 1]) for i in sequences])
    lengths = torch.tensor([starts[i + 1] - starts[i] for i in sequences], dtype=torch.int64)
    sequence_index = torch.tensor(sequences, dtype=torch.int64)

    def whole(i: int) -> tuple[Tensor, int]:
        prompt = batch.prompt_ids[i]
        return torch.cat([prompt, batch.response_ids[starts[i] : starts[i + 1]]]), len(prompt)

    token_ids, position_ids, head_index = lay_out([[whole(i) for i in row] for row in rows])
    return MicroBatch(
        token_ids=token_ids,
        position_ids=position_ids,
        head_index=head_index,
        target_ids=batch.response_ids[token_index],
        temperature=over_tokens(batch.temperature[sequence_index], lengths, len(token_index)),
        counts=batch.mask[token_index],
        token_index=token_index,
        sequence_index=sequence_index,
        lengths=lengths,
        counted=segment_sum(batch.mask[token_index].long(), lengths),
    )
