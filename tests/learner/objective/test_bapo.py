import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from learner.objective.bapo import bapo_bounds
from learner.objective.tokens import Tokens
from services.config.objectives.bapo import BapoObjective
from tests.learner.objective.strategies import SEEDS, ragged, tokens_at, tokens_of


def test_bapo_raises_the_lower_bound_first_then_the_upper() -> None:
    settings = BapoObjective()
    assert bapo_bounds(tokens_at([1.0, 1.0], [2.0, -1.0]), settings).tolist() == pytest.approx([0.6, 1.2])
    # The lower bound only adds to the negative part, so once begun it goes all the way.
    short = bapo_bounds(tokens_at([1.5, 1.0], [0.7, -1.0]), settings)  # positive 0.84 < 1, at high = 1.45 enough
    assert short.tolist() == pytest.approx([0.8, 1.45])
    assert bapo_bounds(tokens_at([1.0, 1.0], [0.1, -1.0]), settings).tolist() == pytest.approx([0.8, 2.0])
    assert bapo_bounds(tokens_at([1.0], [1.0]), settings).tolist() == pytest.approx([0.6, 1.2])


def published_search(t: Tokens, settings: BapoObjective) -> list[float]:
    """Stride by stride, as the released code goes."""
    r, a = (t.current_logp - t.proximal_logp).double().exp(), t.advantage.double()
    low, high = settings.low, settings.high

    def unbalanced() -> bool:
        positive, negative = (r.clamp(max=high) * a)[a >= 0].sum(), (r.clamp(min=low) * -a)[a < 0].sum()
        return bool(negative > 0) and bool(positive / negative < settings.balance)

    while low < settings.low_most and unbalanced():
        low = min(low + settings.stride, settings.low_most)
    while high < settings.high_most and unbalanced():
        high = min(high + settings.stride, settings.high_most)
    return [low, high]


@given(SEEDS, st.sampled_from([0.01, 0.05, 0.3, 5.0]), st.floats(0.2, 4.0))
def test_bapo_ends_where_the_published_search_ends(seed: int, stride: float, balance: float) -> None:
    t, settings = tokens_of(ragged(seed), on_policy=False), BapoObjective(stride=stride, balance=balance)
    assert bapo_bounds(t, settings).tolist() == pytest.approx(published_search(t, settings), abs=1e-9)


def test_bapo_does_not_go_stride_by_stride() -> None:
    """Ten million million strides: whoever takes them all does not come back."""
    far = BapoObjective(stride=1e-4, high_most=1e9)
    began = time.thread_time()
    assert bapo_bounds(tokens_at([1.0, 1.0], [0.1, -1.0]), far).tolist() == pytest.approx([0.8, 1e9])
    assert bapo_bounds(tokens_at([1e4, 1.0], [0.1, -10.0]), far).tolist() == pytest.approx([0.8, 100.0])
    assert time.thread_time() - began < 1.0


@pytest.mark.parametrize("settings", [{"stride": 1e-17}, {"stride": 0.0}, {"high_most": 1e12}])
def test_a_search_without_an_end_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        BapoObjective(**settings)  # type: ignore[arg-type]


@given(SEEDS)
def test_bapo_stops_at_the_first_balance(seed: int) -> None:
    t, settings = tokens_of(ragged(seed), on_policy=False), BapoObjective()
    low, high = bapo_bounds(t, settings).tolist()
    r, a = (t.current_logp - t.proximal_logp).exp().double(), t.advantage.double()
    positive, negative = (r.clamp(max=high) * a.clamp(min=0)).sum(), (r.clamp(min=low) * (-a).clamp(min=0)).sum()
    assert 0.6 <= low <= 0.8
    assert 1.2 <= high <= 2.0
    assert high == 2.0 or negative == 0 or positive / negative >= 1 - 1e-6
