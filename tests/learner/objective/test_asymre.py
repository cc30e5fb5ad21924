import pytest

from learner.objective.asymre import asymre
from services.config.objectives.asymre import AsymreObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_asymre_has_no_ratio_and_a_lower_baseline() -> None:
    t = tokens_at([4.0, 0.1], [1.0, -1.0])
    assert gradient(asymre(t, AsymreObjective(shift=-0.1)), t).tolist() == pytest.approx([1.1, -0.9])
