"""A batch has every column of every sequence, in order; a part of it, or a batch on another device, has them too."""

import torch

from learner.batch.sift import sift, tally
from learner.batch.step_batch import SEQUENCE_COLUMNS, TOKEN_COLUMNS, StepBatch, assemble, batch_of, split
from services.config.learner import LearnerConfig
from tests.learner.tiny import scored_group

SETTINGS = LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1, "max_lag": 2})
TWO = [[1, 2], [3, 4, 5]]


def test_tokens_keep_their_log_probs_and_versions() -> None:
    group = scored_group(
        0,
        rewards=[1.0, 0.0],
        prompt=[7, 8],
        responses=TWO,
        behavior_logp=[[-1.0, -2.0], [-3.0, -4.0, -5.0]],
        versions=[[(3, 1), (4, 1)], [(4, 3)]],
        temperature=0.5,
    )
    batch = assemble([group], 5, SETTINGS)
    assert batch.response_ids.tolist() == [1, 2, 3, 4, 5]
    assert batch.cu_seqlens.tolist() == [0, 2, 5]
    assert batch.behavior_logp.tolist() == [-1.0, -2.0, -3.0, -4.0, -5.0]
    assert batch.lag_steps.tolist() == [2, 1, 1, 1, 1]
    assert [p.tolist() for p in batch.prompt_ids] == [[7, 8], [7, 8]]
    assert (batch.reward.tolist(), batch.group.tolist(), batch.temperature.tolist()) == ([1.0, 0.0], [0, 0], [0.5, 0.5])


def test_parts_are_the_batch() -> None:
    batch = assemble([scored_group(i, rewards=[1.0, 0.0, 0.25]) for i in range(5)], 0, SETTINGS)
    for parts in (1, 2, 3, 5, 9):
        got = split(batch, parts)
        assert len(got) == min(parts, 5)
        assert [p for part in got for p in part.prompt_ids] == list(batch.prompt_ids)
        for name in {*TOKEN_COLUMNS, *SEQUENCE_COLUMNS} - {"group"}:
            assert torch.equal(torch.cat([getattr(part, name) for part in got]), getattr(batch, name))
        for part in got:
            assert part.cu_seqlens[0] == 0
            assert part.cu_seqlens[-1] == len(part.response_ids)
            assert torch.equal(part.group.unique(), torch.arange(int(part.group.max()) + 1))
            assert part.tally == batch.tally
        sizes = [len(part.group.unique()) for part in got]
        assert max(sizes) - min(sizes) <= 1


def test_dropped_groups_may_be_left_out_of_what_a_batch_is_built_from() -> None:
    groups = [scored_group(0, rewards=[1.0, 1.0]), scored_group(1, rewards=[1.0, 0.0])]
    sifted = [sift(group, 0, SETTINGS) for group in groups]
    counted = tally(groups, sifted)
    whole, kept = batch_of(sifted, counted, 0), batch_of([s for s in sifted if s.drop is None], counted, 0)
    assert same(whole, kept)
    assert counted.dropped_groups == {"zero_variance": 1}


def test_every_column_moves_to_a_device_and_an_empty_batch_has_columns_of_the_same_dtypes() -> None:
    batch, empty = assemble([scored_group(0, rewards=[1.0, 0.0])], 0, SETTINGS), assemble([], 0, SETTINGS)
    elsewhere = batch.to(torch.device("meta"))
    for name in (*TOKEN_COLUMNS, *SEQUENCE_COLUMNS):
        assert getattr(elsewhere, name).device.type == "meta"
        assert getattr(empty, name).dtype == getattr(batch, name).dtype
    assert len(empty) == empty.counted_sequences == 0


def same(a: StepBatch, b: StepBatch) -> bool:
    columns = (*TOKEN_COLUMNS, *SEQUENCE_COLUMNS, "cu_seqlens")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in columns) and a.tally == b.tally
