import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.objective.acpo import acpo, acpo_widths, probability_bin
from learner.objective.tokens import Tokens
from services.config.objectives.acpo import AcpoObjective
from tests.learner.objective.strategies import SEEDS, ragged, tokens_of


def off_policy(seed: int) -> Tokens:
    return tokens_of(ragged(seed, sequences=20), on_policy=False)


@pytest.mark.parametrize(("alpha", "expected"), [(3.0, 0.2003), (1.0, 0.2001)])
def test_the_first_update_clips_at_the_base_and_a_hair(alpha: float, expected: float) -> None:
    widths = acpo_widths(tokens_of(ragged(0, sequences=50)), AcpoObjective(alpha=alpha))
    assert widths.tolist() == pytest.approx([expected] * 5, abs=1e-9)


@given(SEEDS, st.integers(1, 8))
def test_widths_are_within_bounds_and_empty_bins_have_the_base(seed: int, bins: int) -> None:
    tokens, settings = off_policy(seed), AcpoObjective(bins=bins, narrowest=0.1, widest=0.5)
    widths = acpo_widths(tokens, settings)
    assert ((widths >= 0.1) & (widths <= 0.5)).all()
    used = torch.bincount(probability_bin(tokens, bins), minlength=bins)
    assert (widths[used == 0] == settings.base).all()


@given(SEEDS)
def test_the_width_is_the_deviation_of_the_ratios_in_the_bin(seed: int) -> None:
    tokens, settings = off_policy(seed), AcpoObjective(widest=100.0)
    r = (tokens.current_logp - tokens.proximal_logp).double().exp()
    for b, width in enumerate(acpo_widths(tokens, settings).tolist()):
        inside = r[(tokens.current_logp.exp() * 5).floor().clamp(0, 4) == b]
        if len(inside):
            assert width == pytest.approx(0.2 + 3 * float((inside.var(correction=0) + 1e-8).sqrt()), rel=1e-4)


@given(SEEDS, st.floats(1.0, 3.0))
def test_more_scatter_never_narrows_a_bin(seed: int, factor: float) -> None:
    tokens = off_policy(seed)
    excess = (tokens.current_logp - tokens.proximal_logp).exp() - 1
    wider = tokens.current_logp - (1 + excess * factor).clamp(min=1e-3).log()
    more = dataclasses.replace(tokens, proximal_logp=wider)
    if ((1 + excess * factor) <= 1e-3).any():
        return
    settings = AcpoObjective(widest=100.0)
    assert (acpo_widths(more, settings) >= acpo_widths(tokens, settings) - 1e-4).all()


def test_a_certain_token_is_in_the_last_bin_even_above_one_by_rounding() -> None:
    tokens = tokens_of(ragged(0))
    certain = dataclasses.replace(tokens, current_logp=torch.full_like(tokens.current_logp, 1e-7))
    assert (probability_bin(certain, 5) == 4).all()


def test_each_bin_clips_at_its_own_width() -> None:
    r, zero = torch.tensor([1.5, 1.5]), torch.zeros(2)
    tokens = dataclasses.replace(
        tokens_of(ragged(0)),
        logp=r.log().requires_grad_(),
        current_logp=torch.tensor([0.1, 0.9]).log(),
        proximal_logp=zero,
        advantage=torch.ones(2),
        statistics=torch.tensor([0.3, 0.2, 0.2, 0.2, 0.7], dtype=torch.float64),
    )
    assert acpo(tokens, AcpoObjective()).tolist() == pytest.approx([1.3, 1.5])
