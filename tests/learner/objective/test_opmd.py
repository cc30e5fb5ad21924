from learner.objective.opmd import opmd
from services.config.objectives.opmd import OpmdObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_opmd_has_no_ratio_and_a_shorter_gradient() -> None:
    t = tokens_at([4.0, 0.1], [1.0, -1.0])
    assert gradient(opmd(t, OpmdObjective(tau=1.0)), t).tolist() == [0.5, -0.5]
