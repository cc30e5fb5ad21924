from learner.objective.reinforce import reinforce
from services.config.objectives.reinforce import ReinforceObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_reinforce_has_no_ratio_of_its_own() -> None:
    t = tokens_at([4.0, 0.1], [1.0, -1.0])
    assert gradient(reinforce(t, ReinforceObjective()), t).tolist() == [1.0, -1.0]
