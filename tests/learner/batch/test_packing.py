import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.batch.micro_batch import MicroBatch
from learner.batch.packing import pack, pack_whole_groups
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


def visible(micro_batch: MicroBatch) -> list[list[int]]:
    """The tokens that each token of the flattened rows sees, by the spans."""
    spans, found, starts = micro_batch.spans, list[list[int]](), list[int]()
    assert sum(spans.lengths) == micro_batch.token_ids.numel()
    for length, before in zip(spans.lengths, spans.continues, strict=True):
        starts.append(len(found))
        given = [] if before is None else list(range(starts[before], starts[before] + spans.lengths[before]))
        found += [[*given, *range(starts[-1], starts[-1] + n + 1)] for n in range(length)]
    return found


def predicted(batch: StepBatch, ranks: list[list[MicroBatch]]) -> None:
    """Every response token once, from the token before it, at positions of its own sequence."""
    assert len({len(micro_batches) for micro_batches in ranks}) == 1  # as many backwards on every rank
    seen = []
    for micro_batch in (m for micro_batches in ranks for m in micro_batches):
        if not len(micro_batch.sequence_index):
            continue
        seen.append(micro_batch.token_index)
        flat, positions = micro_batch.token_ids.flatten(), micro_batch.position_ids.flatten()
        assert torch.equal(micro_batch.target_ids, batch.response_ids[micro_batch.token_index])
        seen_by = visible(micro_batch)
        heads = micro_batch.head_index.split(micro_batch.lengths.tolist())
        targets = micro_batch.target_ids.split(micro_batch.lengths.tolist())
        for i, head, target in zip(micro_batch.sequence_index.tolist(), heads, targets, strict=True):
            prompt = batch.prompt_ids[i]
            before = seen_by[
                int(head[-1])
            ]  # what the last prediction sees: the sequence without its last token, and nothing else
            assert flat[before].tolist() == [*prompt.tolist(), *target[:-1].tolist()]
            assert positions[before].tolist() == list(range(len(prompt) + len(head) - 1))
            assert head.tolist() == before[len(prompt) - 1 :]
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


def long_prompts(groups: int = 4, size: int = 8, prompt: int = 30) -> StepBatch:
    responses = [[list(range(1, 2 + (i * 7 + k * 3) % 9)) for k in range(size)] for i in range(groups)]
    made = [
        scored_group(i, rewards=[1.0, *[0.0] * (size - 1)], prompt=[i + 1] * prompt, responses=responses[i])
        for i in range(groups)
    ]
    return assemble(made, 0, SETTINGS)


@pytest.mark.parametrize("packing", [pack, pack_whole_groups])
@pytest.mark.parametrize("row_tokens", [40, 90, 300])
@pytest.mark.parametrize("world_size", [1, 3])
def test_shared_prompts_predict_the_same_tokens_in_fewer(packing: Any, row_tokens: int, world_size: int) -> None:
    batch = long_prompts()
    shape: dict[str, Any] = {"row_tokens": row_tokens, "rows_per_micro_batch": 8, "world_size": world_size}
    alone, shared = (
        [packing(batch, **shape, rank=r, share_prompts=share) for r in range(world_size)] for share in (False, True)
    )
    predicted(batch, alone)
    predicted(batch, shared)
    assert all(m.token_ids.shape[1] <= row_tokens for part in shared for m in part)
    tokens = [sum(m.token_ids.numel() for part in ranks for m in part) for ranks in (alone, shared)]
    assert tokens[1] < tokens[0] * {40: 1.0, 90: 0.7, 300: 0.5}[row_tokens]


def test_a_prompt_is_not_shared_where_rows_are_not() -> None:
    batch = long_prompts()
    for packing in (pack, pack_whole_groups):
        held = packing(batch, row_tokens=300, rows_per_micro_batch=100, share_rows=False, share_prompts=True)
        assert held is not None
        assert all(before is None for m in held for before in m.spans.continues)


@given(st.integers(1, 5), st.integers(2, 6), st.integers(12, 70), st.integers(1, 3), st.integers(1, 3))
def test_sharing_never_costs_tokens(groups: int, size: int, row_tokens: int, rows: int, world_size: int) -> None:
    batch = assemble([scored_group(i, rewards=[1.0, *[0.0] * (size - 1)]) for i in range(groups)], 0, SETTINGS)
    shape: dict[str, Any] = {"row_tokens": row_tokens, "rows_per_micro_batch": rows, "world_size": world_size}
    alone, shared = (
        [pack(batch, **shape, rank=r, share_prompts=share) for r in range(world_size)] for share in (False, True)
    )
    predicted(batch, shared)
    real = [sum(m.token_ids.numel() for part in ranks for m in part if len(m.lengths)) for ranks in (alone, shared)]
    assert real[1] <= real[0]
