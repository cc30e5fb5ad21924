import pytest
from hypothesis import given

from learner.objective.bapo import bapo_bounds
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


@given(SEEDS)
def test_bapo_stops_at_the_first_balance(seed: int) -> None:
    t, settings = tokens_of(ragged(seed), on_policy=False), BapoObjective()
    low, high = bapo_bounds(t, settings).tolist()
    r, a = (t.current_logp - t.proximal_logp).exp().double(), t.advantage.double()
    positive, negative = (r.clamp(max=high) * a.clamp(min=0)).sum(), (r.clamp(min=low) * (-a).clamp(min=0)).sum()
    assert 0.6 <= low <= 0.8
    assert 1.2 <= high <= 2.0
    assert high == 2.0 or negative == 0 or positive / negative >= 1 - 1e-6
