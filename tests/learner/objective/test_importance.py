import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.objective.aggregate import aggregate, token_scale
from learner.objective.importance import importance_weight, log_importance, within_bounds
from learner.objective.ratios import segment_cumsum, sequence_log_weight
from services.config.advantage import ImportanceConfig
from tests.learner.objective.strategies import SEEDS, ragged, tokens_of

LEVELS = ["token", "sequence", "prefix", "none"]
ACTIONS = ["truncate", "mask", "reject"]
LEVEL, ACTION = st.sampled_from(LEVELS), st.sampled_from(ACTIONS)


def drawn(seed: int) -> tuple[Tensor, Tensor]:
    """(log ratios of tokens that count, lengths)."""
    tokens = tokens_of(ragged(seed))
    return (tokens.current_logp - tokens.behavior_logp).double(), tokens.lengths


def config(level: str, action: str, **bounds: float) -> ImportanceConfig:
    return ImportanceConfig.model_validate({"level": level, "action": action, **bounds})


@given(SEEDS)
def test_the_levels_multiply_what_they_say(seed: int) -> None:
    log_ratio, lengths = drawn(seed)
    got = {level: log_importance(log_ratio, lengths, config(level, "truncate")) for level in LEVELS}
    at = 0
    for length in lengths.tolist():
        one = log_ratio[at : at + length]
        assert torch.equal(got["token"][at : at + length], one)
        assert torch.allclose(got["prefix"][at : at + length], one.cumsum(0), atol=1e-12)
        assert torch.allclose(got["sequence"][at : at + length], one.sum(), atol=1e-12)
        at += length
    assert not got["none"].any()


@given(SEEDS)
def test_a_prefix_weight_ends_as_the_sequence_weight(seed: int) -> None:
    log_ratio, lengths = drawn(seed)
    last = lengths.cumsum(0) - 1
    prefix, whole = (log_importance(log_ratio, lengths, config(x, "truncate"))[last] for x in ("prefix", "sequence"))
    assert torch.allclose(prefix, whole, atol=1e-12)


@given(SEEDS, st.floats(1.0, 20.0))
def test_truncated_sequence_weights_are_those_of_vcpo(seed: int, cap: float) -> None:
    b = ragged(seed)
    log_weight = sequence_log_weight(b["logp"], b["behavior_logp"], b["mask"], b["lengths"])
    expected = log_weight.exp().clamp(max=cap).float()
    log_ratio, lengths = drawn(seed)
    settings = config("sequence", "truncate", cap=cap)
    got = importance_weight(log_importance(log_ratio, lengths, settings), lengths, settings)
    assert torch.allclose(got, expected.repeat_interleave(lengths), rtol=1e-6)


@given(SEEDS, LEVEL, ACTION, st.floats(1.0, 3.0), st.floats(0.0, 1.0))
def test_weights_are_bounded_and_carry_no_gradient(
    seed: int, level: str, action: str, cap: float, floor: float
) -> None:
    log_ratio, lengths = drawn(seed)
    settings = config(level, action, cap=cap, floor=0.0 if action == "truncate" else floor)
    weight = importance_weight(log_importance(log_ratio.requires_grad_(), lengths, settings), lengths, settings)
    assert not weight.requires_grad
    assert weight.dtype == torch.float32
    assert (weight <= cap * (1 + 1e-6)).all()
    if action != "truncate":
        assert ((weight == 0) | (weight >= floor * (1 - 1e-6))).all()


@given(SEEDS, LEVEL, st.floats(1.0, 3.0), st.floats(0.0, 1.0))
def test_mask_leaves_out_tokens_and_reject_their_sequences(seed: int, level: str, cap: float, floor: float) -> None:
    log_ratio, lengths = drawn(seed)
    mask, reject = (config(level, action, cap=cap, floor=floor) for action in ("mask", "reject"))
    log_weight = log_importance(log_ratio, lengths, mask)
    masked, rejected = importance_weight(log_weight, lengths, mask), importance_weight(log_weight, lengths, reject)
    assert torch.equal(masked > 0, within_bounds(log_weight, mask))
    at = 0
    for length in lengths.tolist():
        here = slice(at, at + length)
        beyond = bool((masked[here] == 0).any())
        assert torch.equal(rejected[here], torch.zeros(length) if beyond else masked[here])
        at += length


@pytest.mark.parametrize("aggregation", ["sequence_mean", "token_mean"])
@pytest.mark.parametrize("action", ["mask", "reject"])
def test_what_is_left_out_does_not_make_the_rest_heavier(aggregation: str, action: str) -> None:
    """The denominator was counted before: the second sequence's share is the same whether the first is kept or not."""
    lengths, settings = torch.tensor([2, 2]), config("token", action, cap=2.0)
    scale = token_scale(aggregation, torch.ones(4, dtype=torch.bool), lengths, step_sequences=2, step_tokens=4)  # type: ignore[arg-type]
    for first in (0.0, 9.0):
        log_weight = torch.tensor([first, first, 0.0, 0.0], dtype=torch.float64)
        loss = torch.ones(4, requires_grad=True)
        (share,) = torch.autograd.grad(aggregate(loss * importance_weight(log_weight, lengths, settings), scale), loss)
        assert share[2:].tolist() == [0.25, 0.25]
        assert share[:2].tolist() == ([0.25, 0.25] if first == 0 else [0.0, 0.0])


def test_running_sums_start_again_with_each_run_and_runs_may_be_empty() -> None:
    got = segment_cumsum(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([2, 0, 1, 1]))
    assert got.tolist() == [1.0, 3.0, 4.0, 8.0]


def test_weights_far_beyond_float32_are_cut_not_infinite() -> None:
    log_weight = torch.tensor([-1e4, 0.0, 1.0, 1e4], dtype=torch.float64)
    weight = importance_weight(log_weight, torch.ones(4, dtype=torch.int64), ImportanceConfig())
    assert weight.tolist() == pytest.approx([math.exp(-20), 1.0, math.e, 8.0])
