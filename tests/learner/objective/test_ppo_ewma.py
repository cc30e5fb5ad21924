import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.objective.ppo_ewma import ppo_ewma
from services.config.objectives.ppo_ewma import PpoEwmaObjective
from services.config.reference import EmaReference
from tests.learner.every_objective import settings
from tests.learner.objective.strategies import gradient, tokens_at


def test_cap_and_average_are_those_of_the_cited_code() -> None:
    config = settings("ppo_ewma")
    assert isinstance(config.objective, PpoEwmaObjective)
    assert isinstance(config.reference, EmaReference)
    assert (config.objective.cap, config.reference.decay, config.reference.debiased) == (100.0, 0.889, True)


@given(st.floats(0.1, 1e4), st.floats(0.2, 5.0))
def test_ppo_ewma_weighs_at_most_the_cap(ratio: float, average: float) -> None:
    t = tokens_at([ratio], [1.0], over="behavior")
    t = dataclasses.replace(t, reference_logp=t.current_logp - math.log(average))
    got = gradient(ppo_ewma(t, PpoEwmaObjective(cap=10.0)), t).item()
    assert 0 <= got <= 10.0 * 1.2 * (1 + 1e-5)
    if average <= 1.2 and ratio <= 10 and ratio / average <= 10:
        assert got == pytest.approx(ratio, rel=1e-4)  # unclipped and below the caps: plain importance sampling
