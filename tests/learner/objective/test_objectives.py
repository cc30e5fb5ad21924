"""What sets each objective apart, in numbers small enough to check by hand."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.objective.bapo import bapo_bounds
from learner.objective.cispo import cispo
from learner.objective.decoupled import decoupled_ppo, log_linear_proximal, ppo_ewma
from learner.objective.distillation import distillation
from learner.objective.gspo import gspo, sequence_ratio
from learner.objective.minpro import minpro, smallest_before
from learner.objective.p3o import p3o, p3o_ess
from learner.objective.popo import popo, similarity_penalty
from learner.objective.reinforce import asymre, opmd, reinforce
from learner.objective.sapo import sapo
from learner.objective.surrogate import pessimistic
from learner.objective.tokens import Tokens
from services.config.objective import (
    AsymreObjective,
    BapoObjective,
    CispoObjective,
    DecoupledPpoObjective,
    GspoObjective,
    MinproObjective,
    MopdObjective,
    OpdObjective,
    OpmdObjective,
    P3oObjective,
    PopoObjective,
    PpoEwmaObjective,
    ReinforceObjective,
    SapoObjective,
)
from tests.learner.objective.strategies import SEEDS, ragged, tokens_of


def gradient(value: Tensor, tokens: Tokens) -> Tensor:
    return torch.autograd.grad(value.sum(), tokens.logp)[0]


def tokens(
    ratio: list[float], advantage: list[float], lengths: list[int] | None = None, over: str = "proximal", **more: Tensor
) -> Tokens:
    """Tokens whose ratio current/`over` is given; all other policies are the current one."""
    count = len(ratio)
    current = torch.full((count,), math.log(0.5))
    base = Tokens(
        logp=current.clone().requires_grad_(),
        current_logp=current,
        proximal_logp=current,
        behavior_logp=current,
        reference_logp=current,
        teacher_logp=current[None],
        hidden=torch.zeros(count, 0),
        reference_hidden=torch.zeros(len(lengths or [count]), 0),
        advantage=torch.tensor(advantage),
        lag_steps=torch.zeros(count, dtype=torch.int64),
        lengths=torch.tensor(lengths or [count]),
        statistics=torch.zeros(0, dtype=torch.float64),
    )
    return dataclasses.replace(base, **{f"{over}_logp": current - torch.tensor(ratio).log(), **more})


@given(st.floats(0.01, 30), st.floats(-3, -0.01))
def test_dual_clip_bounds_the_loss_of_a_token_that_became_likely(ratio: float, advantage: float) -> None:
    got = pessimistic(torch.tensor([ratio]), 0.8, 1.28, torch.tensor([advantage]), 3.0)
    assert got.item() == pytest.approx(min(max(ratio, 0.8), 3.0) * advantage, rel=1e-5)


def test_reinforce_asymre_and_opmd_have_no_ratio() -> None:
    t = tokens([4.0, 0.1], [1.0, -1.0])
    assert gradient(reinforce(t, ReinforceObjective()), t).tolist() == [1.0, -1.0]
    assert gradient(asymre(t, AsymreObjective(shift=-0.1)), t).tolist() == pytest.approx([1.1, -0.9])
    assert gradient(opmd(t, OpmdObjective(tau=1.0)), t).tolist() == [0.5, -0.5]


def test_cispo_bounds_the_weight_and_keeps_the_gradient() -> None:
    t = tokens([0.1, 1.1, 5.0], [1.0, 1.0, -1.0])
    assert gradient(cispo(t, CispoObjective()), t).tolist() == pytest.approx([0.1, 1.1, -1.2])


@given(SEEDS)
def test_a_gspo_sequence_has_one_ratio_the_geometric_mean(seed: int) -> None:
    t = tokens_of(ragged(seed), on_policy=False)
    got, at = sequence_ratio(t, t.proximal_logp), 0
    for length in t.lengths.tolist():
        here = slice(at, at + length)
        expected = (t.current_logp - t.proximal_logp)[here].mean().exp()
        assert torch.allclose(got[here], expected, rtol=1e-5)
        at += length


def test_gspo_clips_whole_sequences() -> None:
    t = tokens([1.5, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [2, 2])
    assert gradient(gspo(t, GspoObjective()), t).tolist() == [0.0, 0.0, 1.0, 1.0]


@given(st.floats(0.1, 5), st.sampled_from([-1.0, 1.0]))
def test_sapo_fades_on_both_sides_of_one(ratio: float, advantage: float) -> None:
    t, on = tokens([ratio], [advantage]), tokens([1.0], [advantage])
    # d/d logp = f'(r) r: the slope of the gate is largest at r = 1
    slope = gradient(sapo(t, SapoObjective()), t).item() / ratio
    assert abs(slope) <= abs(gradient(sapo(on, SapoObjective()), on).item()) + 1e-6
    assert slope * advantage >= 0


def test_sapo_is_narrower_for_negative_advantages() -> None:
    up, down = tokens([3.0], [1.0]), tokens([3.0], [-1.0])
    assert gradient(sapo(up, SapoObjective()), up) > -gradient(sapo(down, SapoObjective()), down)


def test_bapo_raises_the_lower_bound_first_then_the_upper() -> None:
    settings = BapoObjective()
    assert bapo_bounds(tokens([1.0, 1.0], [2.0, -1.0]), settings).tolist() == pytest.approx([0.6, 1.2])
    # The lower bound only adds to the negative part, so once begun it goes all the way.
    short = bapo_bounds(tokens([1.5, 1.0], [0.7, -1.0]), settings)  # positive 0.84 < 1, at high = 1.45 enough
    assert short.tolist() == pytest.approx([0.8, 1.45])
    assert bapo_bounds(tokens([1.0, 1.0], [0.1, -1.0]), settings).tolist() == pytest.approx([0.8, 2.0])
    assert bapo_bounds(tokens([1.0], [1.0]), settings).tolist() == pytest.approx([0.6, 1.2])


@given(SEEDS)
def test_bapo_stops_at_the_first_balance(seed: int) -> None:
    t, settings = tokens_of(ragged(seed), on_policy=False), BapoObjective()
    low, high = bapo_bounds(t, settings).tolist()
    r, a = (t.current_logp - t.proximal_logp).exp().double(), t.advantage.double()
    positive, negative = (r.clamp(max=high) * a.clamp(min=0)).sum(), (r.clamp(min=low) * (-a).clamp(min=0)).sum()
    assert 0.6 <= low <= 0.8
    assert 1.2 <= high <= 2.0
    assert high == 2.0 or negative == 0 or positive / negative >= 1 - 1e-6


def test_minpro_weighs_by_the_smallest_ratio_before() -> None:
    t = tokens([2.0, 0.5, 4.0, 3.0, 2.0], [1.0] * 5, [4, 1], over="behavior")
    assert gradient(minpro(t, MinproObjective(cap=100.0)), t).tolist() == pytest.approx([2.0, 1.0, 2.0, 1.5, 2.0])
    assert gradient(minpro(t, MinproObjective(cap=1.5)), t).max().item() == pytest.approx(1.5)


def test_the_smallest_before_starts_anew_with_each_sequence() -> None:
    got = smallest_before(torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.tensor([3, 0, 1]))
    assert got.tolist() == [math.inf, 3.0, 1.0, math.inf]
    assert len(smallest_before(torch.zeros(0), torch.zeros(2, dtype=torch.int64))) == 0


def test_decoupled_ppo_bounds_the_mismatch_not_the_ratio() -> None:
    """proximal/behavior 2 and 8, current/proximal 1: above the cap of 5 a token is left out, or cut."""
    t = tokens([2.0, 8.0], [1.0, 1.0], over="behavior")
    assert gradient(decoupled_ppo(t, DecoupledPpoObjective()), t).tolist() == pytest.approx([2.0, 0.0])
    cut = DecoupledPpoObjective(above_cap="truncate")
    assert gradient(decoupled_ppo(t, cut), t).tolist() == pytest.approx([2.0, 5.0])


def test_decoupled_ppo_clips_around_the_proximal_policy() -> None:
    t = tokens([1.5, 1.1], [1.0, 1.0])
    t = dataclasses.replace(t, behavior_logp=t.proximal_logp)
    assert gradient(decoupled_ppo(t, DecoupledPpoObjective()), t).tolist() == pytest.approx([0.0, 1.1])


def test_the_log_linear_proximal_policy_moves_from_behavior_to_current_with_lag() -> None:
    t = tokens([math.e] * 4, [1.0] * 4, over="behavior", lag_steps=torch.tensor([0, 1, 2, 4]))
    assert (log_linear_proximal(t) - t.behavior_logp).tolist() == pytest.approx([1.0, 0.0, 0.5, 0.75])


@given(st.floats(0.1, 1e4), st.floats(0.2, 5.0))
def test_ppo_ewma_weighs_at_most_the_cap(ratio: float, average: float) -> None:
    t = tokens([ratio], [1.0], over="behavior")
    t = dataclasses.replace(t, reference_logp=t.current_logp - math.log(average))
    got = gradient(ppo_ewma(t, PpoEwmaObjective(cap=10.0)), t).item()
    assert 0 <= got <= 10.0 * 1.2 * (1 + 1e-5)
    if average <= 1.2 and ratio <= 10 and ratio / average <= 10:
        assert got == pytest.approx(ratio, rel=1e-4)  # unclipped and below the caps: plain importance sampling


def test_popo_learns_from_positives_alone_up_to_its_bound() -> None:
    t = tokens([1.1, 1.1, 1.5, 1.0], [2.0, 2.0, 2.0, 0.0], [2, 1, 1], over="reference")
    assert gradient(popo(t, PopoObjective(similarity=0.0)), t).tolist() == pytest.approx([2.2, 2.2, 0.0, 0.0])


def test_popo_without_positives_has_a_graph_and_no_gradient() -> None:
    t = tokens([1.1, 0.9], [0.0, 0.0], over="reference")
    value = popo(t, PopoObjective(similarity=0.0))
    assert value.requires_grad
    assert not gradient(value, t).any()


@given(SEEDS)
def test_popo_holds_close_only_what_is_positive(seed: int) -> None:
    t = tokens_of(ragged(seed))
    t = dataclasses.replace(t, hidden=t.hidden.detach().requires_grad_())
    (at,) = torch.autograd.grad(popo(t, PopoObjective(similarity=0.5)).sum(), t.hidden)
    assert not at[t.advantage <= 0].any()
    assert at[t.advantage > 0].any() == (t.advantage > 0).any()


@given(SEEDS, st.floats(0.0, 5.0), st.sampled_from([1e-20, 1.0, 1e20]))
def test_the_similarity_penalty_is_bounded_whatever_the_size_of_hidden_states(
    seed: int, similarity: float, size: float
) -> None:
    t = tokens_of(ragged(seed))
    t = dataclasses.replace(t, hidden=t.hidden * size, reference_hidden=-t.reference_hidden * size)
    penalty = similarity_penalty(t, PopoObjective(similarity=similarity))
    assert ((penalty >= 0) & (penalty <= 2 * similarity)).all()


def test_the_similarity_penalty_vanishes_at_the_twin_and_pulls_back_to_it() -> None:
    t, settings = tokens_of(ragged(1), dtype=torch.float64), PopoObjective(similarity=0.5)
    same = dataclasses.replace(t, hidden=t.hidden.requires_grad_(), reference_hidden=t.sequence_mean(t.hidden).detach())
    penalty = similarity_penalty(same, settings)
    (at_rest,) = torch.autograd.grad(penalty.sum(), same.hidden)
    assert penalty.abs().max() < 1e-9
    assert at_rest.abs().max() < 1e-7
    moved = dataclasses.replace(t, hidden=t.hidden.detach().requires_grad_())
    assert torch.autograd.gradcheck(
        lambda hidden: similarity_penalty(dataclasses.replace(moved, hidden=hidden), settings), moved.hidden
    )


def test_distillation_moves_to_the_teacher_and_can_turn_against_the_verdict() -> None:
    t = tokens([1.0, 1.0], [1.0, 1.0])
    t = dataclasses.replace(t, teacher_logp=(t.current_logp + torch.tensor([0.5, -2.0]))[None])
    assert gradient(distillation(t, OpdObjective()), t).tolist() == pytest.approx([0.5, -2.0])
    # Negative control of the one-way guarantee: here the verdict was positive and the token goes down.
    assert gradient(distillation(t, OpdObjective(outcome=1.0)), t).tolist() == pytest.approx([1.5, -1.0])


def test_several_teachers_count_in_proportion() -> None:
    t = tokens([1.0], [2.0])
    two = t.current_logp + torch.tensor([[1.0], [-1.0]])
    t = dataclasses.replace(t, teacher_logp=two)
    for weights, expected in (((), 2.0), ((3.0, 1.0), 2.5), ((30.0, 10.0), 2.5)):
        assert gradient(distillation(t, MopdObjective(weights=weights)), t).item() == pytest.approx(expected)


@given(SEEDS)
def test_p3o_caps_ratios_at_the_effective_sample_size(seed: int) -> None:
    t = tokens_of(ragged(seed))
    w = (t.current_logp - t.behavior_logp).double().exp()
    ess = float(w.sum() ** 2 / w.square().sum() / len(w))
    got = p3o_ess(t, P3oObjective())
    assert got.item() == pytest.approx(ess, rel=1e-6)
    t = dataclasses.replace(t, statistics=got)
    expected = w.clamp(max=ess) * t.advantage + (1 - ess)
    assert torch.allclose(gradient(p3o(t, P3oObjective()), t).double(), expected, atol=1e-5)


def test_p3o_on_policy_is_reinforce() -> None:
    t = tokens([1.0, 1.0], [1.0, -2.0])
    t = dataclasses.replace(t, statistics=p3o_ess(t, P3oObjective()))
    assert gradient(p3o(t, P3oObjective()), t).tolist() == pytest.approx([1.0, -2.0])
