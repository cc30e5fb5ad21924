import pytest

from learner.objective.cispo import cispo
from services.config.objectives.cispo import CispoObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_cispo_bounds_the_weight_and_keeps_the_gradient() -> None:
    t = tokens_at([0.1, 1.1, 5.0], [1.0, 1.0, -1.0])
    assert gradient(cispo(t, CispoObjective()), t).tolist() == pytest.approx([0.1, 1.1, -1.2])
