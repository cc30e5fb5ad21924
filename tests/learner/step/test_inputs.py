"""The inputs of a step: what counts, places in the mini-batch, and what MC-GRPO leaves out."""

import torch

from learner.batch.packing import pack
from learner.batch.step_batch import assemble
from learner.step.inputs import SHARED_COLUMNS, StepInputs, without_pivots
from tests.learner.every_objective import settings
from tests.learner.tiny import scored_group

RESPONSES = [[1, 2], [3, 4, 5], [6]]


def inputs() -> StepInputs:
    group = scored_group(
        0, rewards=[1.0, 0.0, 0.25], responses=RESPONSES, versions=[[(0, 1), (3, 1)], [(3, 3)], [(3, 1)]]
    )
    config = settings("owpo", stale_tokens="mask")
    return StepInputs.of(assemble([group], 3, config), torch.device("cpu"), config.advantage)


def test_only_tokens_that_count_are_counted() -> None:
    made = inputs()
    assert made.lengths.tolist() == [2, 3, 1]
    assert made.counted.tolist() == [1, 3, 1]
    assert (made.step_sequences, made.step_tokens) == (3, 5)


def test_the_places_of_all_micro_batches_are_everything() -> None:
    made = inputs()
    micro_batches = pack(made.batch, row_tokens=11, rows_per_micro_batch=1)
    assert len(micro_batches) > 1
    for name in ("token_index", "sequence_index"):
        found = torch.cat([getattr(made.places(m), name) for m in micro_batches])
        assert torch.equal(found.sort().values, getattr(made.everything, name))


def test_objectives_see_the_columns_that_they_name() -> None:
    made, at = inputs(), torch.tensor([1, 4])
    assert set(SHARED_COLUMNS) == {"behavior_logp", "lag_steps"}
    assert made.shared_columns(at)["lag_steps"].tolist() == [0, 0]
    assert torch.equal(made.shared_columns(at)["behavior_logp"], made.batch.behavior_logp[at])


def test_no_token_of_a_pivot_counts() -> None:
    batch = assemble([scored_group(0, rewards=[1.0, 0.0, 0.25], responses=RESPONSES)], 0, settings("mc_grpo"))
    assert without_pivots(batch).mask.tolist() == [True] * 5 + [False]
    assert batch.mask.all()
