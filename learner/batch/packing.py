"""Lay sequences into rows under a token budget, rows into micro-batches, and micro-batches onto ranks.

The step does not depend on any of it: positions restart with each sequence, no sequence attends to another (for models that
keep them apart: learner/engine/separation.py), and every sum has a denominator of the whole step. Where a micro-batch holds a
whole group, one forward says all that its sequences have to know about each other.

What is laid into rows are pieces: a sequence, or where prompts are shared, sequences of one group behind their prompt.
"""

from bisect import bisect_left
from functools import partial

from learner.batch.micro_batch import MicroBatch, filler, micro_batch_of
from learner.batch.pieces import (
    Piece,
    Plan,
    even_rows,
    members_of,
    piece_tokens,
    plan_tokens,
    rows_of_pieces,
    ways_to_share,
)
from learner.batch.rows import spread
from learner.batch.step_batch import StepBatch


def pack(
    batch: StepBatch,
    *,
    row_tokens: int,
    rows_per_micro_batch: int,
    share_rows: bool = True,
    share_prompts: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> list[MicroBatch]:
    """This rank's micro-batches, equally many on every rank with fillers at the end. Rows are dealt to the ranks in turn.

    share_rows: whether a row may hold several sequences. share_prompts: whether the prompt of a group may be in a row once,
    before several of its responses; it is where that makes for fewer tokens.
    """
    tokens = piece_tokens(batch)

    def plan(pieces: list[Piece]) -> Plan:
        rows = rows_of_pieces(pieces, tokens, row_tokens, share_rows=share_rows)
        most = -(-len(rows) // world_size)
        count = -(-most // rows_per_micro_batch)
        return [
            [rows[r::world_size][i * rows_per_micro_batch : (i + 1) * rows_per_micro_batch] for i in range(count)]
            for r in range(world_size)
        ]

    plans = [plan(pieces) for pieces in ways_to_share(batch, row_tokens, share_prompts=share_prompts and share_rows)]
    return _micro_batches(batch, min(plans, key=partial(plan_tokens, tokens=tokens))[rank], share_rows=share_rows)


def pack_whole_groups(
    batch: StepBatch,
    *,
    row_tokens: int,
    rows_per_micro_batch: int,
    share_rows: bool = True,
    share_prompts: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> list[MicroBatch] | None:
    """Like `pack`, with every group whole in one micro-batch; None when a group is more than a micro-batch holds.

    Each rank gets as few micro-batches as possible, filled evenly; they are dealt to the ranks in turn.
    """
    tokens = piece_tokens(batch)
    groups = len(members_of(batch))
    most = -(-groups // world_size)  # every group alone
    group_of = batch.group.tolist()

    def plan(pieces: list[Piece]) -> Plan | None:
        of_group: list[list[Piece]] = [[] for _ in range(groups)]
        for piece in pieces:
            of_group[group_of[piece[0]]].append(piece)
        sizes = [sum(map(tokens, own)) for own in of_group]

        def rows_on(turns: int) -> list[list[list[Piece]] | None]:
            """Rows of each micro-batch, given `turns` micro-batches a rank; None where there are too many."""
            held = [[piece for g in on for piece in of_group[g]] for on in spread(sizes, turns * world_size)]
            return [even_rows(own, tokens, row_tokens, rows_per_micro_batch, share_rows=share_rows) for own in held]

        fewest = -(-sum(sizes) // (row_tokens * rows_per_micro_batch * world_size))
        chosen = rows_on(fewest)  # mostly they are enough
        if None in chosen:
            if None in rows_on(most):
                return None
            chosen = rows_on(
                fewest + bisect_left(range(fewest, most), True, key=lambda turns: None not in rows_on(turns))
            )
        found = [rows or [] for rows in chosen]
        return [found[r::world_size] for r in range(world_size)]

    ways = ways_to_share(batch, row_tokens, share_prompts=share_prompts and share_rows)
    plans = [found for pieces in ways if (found := plan(pieces)) is not None]
    if not plans:
        return None
    return _micro_batches(batch, min(plans, key=partial(plan_tokens, tokens=tokens))[rank], share_rows=share_rows)


def one_each(batch: StepBatch, *, rank: int = 0, world_size: int = 1) -> list[MicroBatch]:
    """This rank's sequences, one in each micro-batch: groups whole and in order, dealt to the ranks in turn."""
    members = members_of(batch)
    shares = [[i for group in members[r::world_size] for i in group] for r in range(world_size)]
    mine, most = shares[rank], max(map(len, shares))
    return [micro_batch_of(batch, [[[i]]], share_rows=False) for i in mine] + [filler()] * (most - len(mine))


def _micro_batches(batch: StepBatch, planned: list[list[list[Piece]]], *, share_rows: bool) -> list[MicroBatch]:
    return [micro_batch_of(batch, rows, share_rows=share_rows) if rows else filler() for rows in planned]
