import math

import torch
from hypothesis import given

from learner.objective.ratios import log_ratio, segment_sum, sequence_log_weight
from tests.learner.objective.strategies import SEEDS, ragged


@given(SEEDS)
def test_masked_garbage_changes_nothing(seed: int) -> None:
    b = ragged(seed)
    clean = sequence_log_weight(b["logp"], b["behavior_logp"], b["mask"], b["lengths"])
    for garbage in (math.nan, math.inf, -math.inf):
        dirty = torch.where(b["mask"], b["behavior_logp"], garbage)
        assert torch.equal(clean, sequence_log_weight(b["logp"], dirty, b["mask"], b["lengths"]))


def test_bfloat16_is_upcast_before_subtracting() -> None:
    a, b = torch.tensor([-3.0], dtype=torch.bfloat16), torch.tensor([-3.001])
    assert torch.allclose(log_ratio(a, b, torch.tensor([True])), torch.tensor([0.001]), atol=1e-6)


def test_segments_are_consecutive_and_may_be_empty() -> None:
    assert segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2, 0, 1])).tolist() == [3.0, 0.0, 4.0]


@given(SEEDS)
def test_importance_weights_carry_no_gradient(seed: int) -> None:
    b = ragged(seed)
    b["logp"].requires_grad_()
    assert not sequence_log_weight(b["logp"], b["behavior_logp"], b["mask"], b["lengths"]).requires_grad
