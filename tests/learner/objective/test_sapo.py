from hypothesis import given
from hypothesis import strategies as st

from learner.objective.sapo import sapo
from services.config.objectives.sapo import SapoObjective
from tests.learner.objective.strategies import gradient, tokens_at


@given(st.floats(0.1, 5), st.sampled_from([-1.0, 1.0]))
def test_sapo_fades_on_both_sides_of_one(ratio: float, advantage: float) -> None:
    t, on = tokens_at([ratio], [advantage]), tokens_at([1.0], [advantage])
    # d/d logp = f'(r) r: the slope of the gate is largest at r = 1
    slope = gradient(sapo(t, SapoObjective()), t).item() / ratio
    assert abs(slope) <= abs(gradient(sapo(on, SapoObjective()), on).item()) + 1e-6
    assert slope * advantage >= 0


def test_sapo_is_narrower_for_negative_advantages() -> None:
    up, down = tokens_at([3.0], [1.0]), tokens_at([3.0], [-1.0])
    assert gradient(sapo(up, SapoObjective()), up) > -gradient(sapo(down, SapoObjective()), down)
