import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.objective.aggregate import aggregate, token_scale
from tests.learner.objective.strategies import SEEDS, ragged

AGGREGATION = st.sampled_from(["sequence_mean", "token_mean"])


@given(SEEDS, AGGREGATION, st.integers(1, 5))
def test_parts_sum_to_the_whole_wherever_it_is_cut(seed: int, aggregation: str, cut: int) -> None:
    b = ragged(seed)
    step = {"step_sequences": 6, "step_tokens": int(b["mask"].sum())}
    whole = aggregate(b["logp"], token_scale(aggregation, b["mask"], b["lengths"], **step))  # type: ignore[arg-type]
    at = int(b["lengths"][:cut].sum())
    parts = [
        aggregate(b["logp"][s], token_scale(aggregation, b["mask"][s], lengths, **step))  # type: ignore[arg-type]
        for s, lengths in ((slice(0, at), b["lengths"][:cut]), (slice(at, None), b["lengths"][cut:]))
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-5)


@given(SEEDS, AGGREGATION)
def test_tokens_that_do_not_count_change_nothing_not_even_as_nan(seed: int, aggregation: str) -> None:
    b = ragged(seed)
    scale = token_scale(aggregation, b["mask"], b["lengths"], step_sequences=6, step_tokens=int(b["mask"].sum()))  # type: ignore[arg-type]
    clean = b["logp"].clone().requires_grad_()
    dirty = torch.where(b["mask"], b["logp"], math.nan).requires_grad_()
    one, two = aggregate(clean, scale), aggregate(dirty, scale)
    assert torch.equal(one, two)
    (of_clean,), (of_dirty,) = torch.autograd.grad(one, clean), torch.autograd.grad(two, dirty)
    assert torch.equal(of_clean, of_dirty)
    assert (of_clean[~b["mask"]] == 0).all()


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean"])
def test_a_fully_masked_sequence_contributes_nothing(aggregation: str) -> None:
    mask, lengths = torch.tensor([True, False, False]), torch.tensor([1, 2])
    scale = token_scale(aggregation, mask, lengths, step_sequences=1, step_tokens=1)  # type: ignore[arg-type]
    assert scale.tolist() == [1.0, 0.0, 0.0]


def test_the_definitions() -> None:
    mask, lengths = torch.tensor([True, True, False, True]), torch.tensor([3, 1])
    by_sequence = token_scale("sequence_mean", mask, lengths, step_sequences=2, step_tokens=3)
    by_token = token_scale("token_mean", mask, lengths, step_sequences=2, step_tokens=3)
    assert by_sequence.tolist() == [0.25, 0.25, 0.0, 0.5]
    assert torch.allclose(by_token, torch.tensor([1 / 3, 1 / 3, 0.0, 1 / 3]))


def test_a_constant_divides_every_token_alike_however_long_its_sequence() -> None:
    mask, lengths = torch.tensor([True, True, False, True]), torch.tensor([3, 1])
    scale = token_scale("constant", mask, lengths, step_sequences=2, step_tokens=3, constant_tokens=10)
    assert torch.allclose(scale, torch.tensor([0.05, 0.05, 0.0, 0.05]))
    with pytest.raises(ValueError, match="constant_tokens"):
        token_scale("constant", mask, lengths, step_sequences=2, step_tokens=3)
