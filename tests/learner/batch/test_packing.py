import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.batch.packing import MicroBatch, pack, pack_whole_groups
from learner.batch.rows import first_fit_decreasing, spread
from learner.batch.step_batch import StepBatch, assemble
from services.config.learner import LearnerConfig
from services.errors import InputError
from services.wire.score import ScoredGroup
from tests.learner.tiny import scored_group

SETTINGS = LearnerConfig(steps=1, groups_per_step=1)


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(50, 200))
def test_rows_hold_everything_once_within_the_budget(lengths: list[int], budget: int) -> None:
    rows = first_fit_decreasing(lengths, budget)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= budget for row in rows)
    # First fit: at most one row is half empty.
    assert sum(sum(lengths[i] for i in row) * 2 <= budget for row in rows) <= 1
    assert rows == first_fit_decreasing(lengths, budget)


def test_a_sequence_that_fits_no_row_names_the_setting() -> None:
    with pytest.raises(InputError, match=r"row_tokens = 10"):
        first_fit_decreasing([3, 11], 10)


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(1, 9))
def test_parts_are_as_even_as_their_longest_item_lets_them_be(sizes: list[int], parts: int) -> None:
    shares = spread(sizes, parts)
    assert sorted(i for share in shares for i in share) == list(range(len(sizes)))
    sums = [sum(sizes[i] for i in share) for share in shares]
    assert max(sums) - min(sums) <= max(sizes, default=0)
    assert shares == spread(sizes, parts)


def predicted(batch: StepBatch, ranks: list[list[MicroBatch]]) -> None:
    """Every response token once, from the token before it, at positions of its own sequence."""
    assert len({len(micro_batches) for micro_batches in ranks}) == 1  # as many backwards on every rank
    seen = []
    for micro_batch in (m for micro_batches in ranks for m in micro_batches):
        if not len(micro_batch.sequence_index):
            continue
        seen.append(micro_batch.token_index)
        flat, positions = micro_batch.token_ids.flatten(), micro_batch.position_ids.flatten()
        assert torch.equal(flat[micro_batch.head_index + 1][:-1], micro_batch.target_ids[:-1])
        assert torch.equal(micro_batch.target_ids, batch.response_ids[micro_batch.token_index])
        at = 0
        for i, length in zip(micro_batch.sequence_index.tolist(), micro_batch.lengths.tolist(), strict=True):
            head, prompt = micro_batch.head_index[at], batch.prompt_ids[i]
            start = head + 1 - len(prompt)
            assert torch.equal(flat[start : head + 1], prompt)
            assert positions[start : head + 1 + length].tolist() == list(range(len(prompt) + length))
            at += length
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(len(batch.response_ids)))


SHAPES = given(st.integers(1, 6), st.integers(11, 60), st.integers(1, 5), st.integers(1, 3))


@SHAPES
def test_every_response_token_is_predicted_once_from_the_token_before_it(
    groups: int, row_tokens: int, rows_per_micro_batch: int, world_size: int
) -> None:
    batch = assemble([scored_group(i, rewards=[1.0, 0.0, 0.0]) for i in range(groups)], 0, SETTINGS)
    shape: dict[str, Any] = {
        "row_tokens": row_tokens,
        "rows_per_micro_batch": rows_per_micro_batch,
        "world_size": world_size,
    }
    ranks = [pack(batch, rank=r, **shape) for r in range(world_size)]
    predicted(batch, ranks)
    assert all(m.token_ids.shape[0] <= rows_per_micro_batch for part in ranks for m in part)


@SHAPES
def test_rows_that_are_not_shared_hold_one_sequence_each(
    groups: int, row_tokens: int, rows_per_micro_batch: int, world_size: int
) -> None:
    batch = assemble([scored_group(i, rewards=[1.0, 0.0, 0.0]) for i in range(groups)], 0, SETTINGS)
    shape: dict[str, Any] = {"row_tokens": row_tokens, "rows_per_micro_batch": rows_per_micro_batch}
    ranks = [pack(batch, **shape, share_rows=False, rank=r, world_size=world_size) for r in range(world_size)]
    predicted(batch, ranks)
    for micro_batch in (m for part in ranks for m in part if len(m.sequence_index)):
        assert len(micro_batch.token_ids) == len(micro_batch.sequence_index) <= rows_per_micro_batch
        assert torch.equal(micro_batch.position_ids[0], torch.arange(micro_batch.token_ids.shape[1]))
    whole = pack_whole_groups(batch, row_tokens=row_tokens, rows_per_micro_batch=3 * groups, share_rows=False)
    assert whole is not None
    assert all(len(m.token_ids) == len(m.sequence_index) for m in whole)


@SHAPES
def test_groups_lie_whole_in_a_micro_batch_wherever_each_fits_one(
    groups: int, row_tokens: int, rows_per_micro_batch: int, world_size: int
) -> None:
    batch = assemble([scored_group(i, rewards=[1.0, 0.0, 0.0]) for i in range(groups)], 0, SETTINGS)
    shape: dict[str, Any] = {
        "row_tokens": row_tokens,
        "rows_per_micro_batch": rows_per_micro_batch,
        "world_size": world_size,
    }
    ranks = [pack_whole_groups(batch, rank=r, **shape) for r in range(world_size)]
    totals = [len(p) + r for p, r in zip(batch.prompt_ids, batch.cu_seqlens.diff().tolist(), strict=True)]
    rows = [first_fit_decreasing([totals[i] for i in range(3 * g, 3 * g + 3)], row_tokens) for g in range(groups)]
    fits = all(len(r) <= rows_per_micro_batch for r in rows)
    assert [part is not None for part in ranks] == [fits] * world_size
    if not fits:
        return
    packed = [part for part in ranks if part is not None]
    predicted(batch, packed)
    held = [batch.group[m.sequence_index].unique().tolist() for part in packed for m in part]
    assert sorted(itertools.chain(*held)) == list(range(groups))  # no group is in two
    assert len(packed[0]) <= -(-groups // world_size)
    for micro_batch in (m for part in packed for m in part):
        assert micro_batch.token_ids.shape[0] <= rows_per_micro_batch
        assert micro_batch.token_ids.shape[1] <= row_tokens


@pytest.mark.parametrize(("row_tokens", "rows", "ranks"), [(1024, 1, 1), (1024, 1, 4), (128, 8, 1), (256, 4, 2)])
def test_keeping_groups_whole_costs_little_padding_and_few_micro_batches(
    row_tokens: int, rows: int, ranks: int
) -> None:
    draw = torch.Generator().manual_seed(0)

    def group(index: int) -> ScoredGroup:
        lengths = (torch.randn(8, generator=draw) * 0.4 + 2.7).exp().int().clamp(1, 60).tolist()
        return scored_group(index, rewards=[1.0] + [0.0] * 7, prompt=[1] * 8, responses=[[2] * n for n in lengths])

    batch = assemble([group(i) for i in range(64)], 0, SETTINGS)
    tokens = sum(len(p) for p in batch.prompt_ids) + len(batch.response_ids)

    def cost(way: Callable[..., list[MicroBatch] | None]) -> tuple[int, int]:
        """Micro-batches a rank, tokens with padding on the rank that has most."""
        parts = [
            way(batch, row_tokens=row_tokens, rows_per_micro_batch=rows, rank=r, world_size=ranks) for r in range(ranks)
        ]
        return len(parts[0] or ()), max(sum(m.token_ids.numel() for m in part or ()) for part in parts)

    (plain_count, plain), (count, padded) = cost(pack), cost(pack_whole_groups)
    assert count <= 1.25 * plain_count + 1
    assert padded <= 1.05 * plain
    assert padded <= 1.1 * tokens / ranks
