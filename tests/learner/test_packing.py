import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.batch import assemble
from learner.packing import first_fit_decreasing, pack
from services.config.learner import LearnerConfig
from services.errors import InputError
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


@given(st.integers(1, 6), st.integers(11, 60), st.integers(1, 5), st.integers(1, 3))
def test_every_response_token_is_predicted_once_from_the_token_before_it(
    groups: int, row_tokens: int, rows_per_micro_batch: int, world_size: int
) -> None:
    batch = assemble([scored_group(i, rewards=[1.0, 0.0, 0.0]) for i in range(groups)], 0, SETTINGS)
    ranks = [
        pack(batch, row_tokens=row_tokens, rows_per_micro_batch=rows_per_micro_batch, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    assert len({len(micro_batches) for micro_batches in ranks}) == 1  # as many backwards on every rank
    seen = []
    for micro_batch in (m for micro_batches in ranks for m in micro_batches):
        assert micro_batch.token_ids.shape[0] <= rows_per_micro_batch
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
