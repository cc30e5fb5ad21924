import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.objective.popo_ratio import popo_ratio, similarity_penalty
from services.config.objectives.popo_ratio import PopoRatioObjective
from tests.learner.objective.strategies import SEEDS, gradient, ragged, tokens_at, tokens_of


def test_it_learns_from_positives_alone_up_to_its_bound() -> None:
    t = tokens_at([1.1, 1.1, 1.5, 1.0], [2.0, 2.0, 2.0, 0.0], [2, 1, 1], over="reference")
    assert gradient(popo_ratio(t, PopoRatioObjective(similarity=0.0)), t).tolist() == pytest.approx(
        [2.2, 2.2, 0.0, 0.0]
    )


def test_it_without_positives_has_a_graph_and_no_gradient() -> None:
    t = tokens_at([1.1, 0.9], [0.0, 0.0], over="reference")
    value = popo_ratio(t, PopoRatioObjective(similarity=0.0))
    assert value.requires_grad
    assert not gradient(value, t).any()


@given(SEEDS)
def test_it_holds_close_only_what_is_positive(seed: int) -> None:
    t = tokens_of(ragged(seed))
    t = dataclasses.replace(t, hidden=t.hidden.detach().requires_grad_())
    (at,) = torch.autograd.grad(popo_ratio(t, PopoRatioObjective(similarity=0.5)).sum(), t.hidden)
    of_sequence = t.sequence_mean(t.advantage)
    assert not at[of_sequence <= 0].any()
    assert at[of_sequence > 0].any() == (of_sequence > 0).any()


@given(SEEDS, st.sampled_from([0.0]) | st.floats(1e-30, 5.0), st.sampled_from([1e-20, 1.0, 1e20]))
def test_the_similarity_penalty_is_bounded_whatever_the_size_of_hidden_states(
    seed: int, similarity: float, size: float
) -> None:
    t = tokens_of(ragged(seed))
    t = dataclasses.replace(t, hidden=t.hidden * size, reference_hidden=-t.reference_hidden * size)
    penalty = similarity_penalty(t, PopoRatioObjective(similarity=similarity))
    assert ((penalty >= 0) & (penalty <= 2 * similarity)).all()


def test_the_similarity_penalty_vanishes_at_the_twin_and_pulls_back_to_it() -> None:
    t, settings = tokens_of(ragged(1), dtype=torch.float64), PopoRatioObjective(similarity=0.5)
    same = dataclasses.replace(t, hidden=t.hidden.requires_grad_(), reference_hidden=t.hidden.detach())
    penalty = similarity_penalty(same, settings)
    (at_rest,) = torch.autograd.grad(penalty.sum(), same.hidden)
    assert penalty.abs().max() < 1e-9
    assert at_rest.abs().max() < 1e-7
    moved = dataclasses.replace(t, hidden=t.hidden.detach().requires_grad_())
    assert torch.autograd.gradcheck(
        lambda hidden: similarity_penalty(dataclasses.replace(moved, hidden=hidden), settings), moved.hidden
    )
