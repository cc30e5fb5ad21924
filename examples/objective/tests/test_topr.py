import dataclasses
import math

import pytest
import torch
from ratchet_objective_topr.functions import OBJECTIVE, topr
from ratchet_objective_topr.settings import ToprObjective

from learner.objective.check import example_tokens, faults


def gradient(log_ratio: float, advantage: float, cap: float = 1.0) -> float:
    """Gradient of one token of a response of three, each with this log-ratio current/behavior."""
    tokens = example_tokens(teachers=0)
    behavior = tokens.current_logp - log_ratio
    tokens = dataclasses.replace(tokens, behavior_logp=behavior, advantage=torch.full_like(behavior, advantage))
    (got,) = torch.autograd.grad(topr(tokens, ToprObjective(cap=cap)).sum(), tokens.logp)
    return got[0].item()


def test_a_learner_can_use_it() -> None:
    assert faults(OBJECTIVE, ToprObjective()) == []


@pytest.mark.parametrize("log_ratio", [-2.0, 0.0, 2.0])
def test_what_was_right_has_the_weight_one(log_ratio: float) -> None:
    assert gradient(log_ratio, advantage=0.5) == 0.5


def test_what_was_wrong_fades_with_the_ratio_of_the_whole_response() -> None:
    assert gradient(-0.5, advantage=-1.0) == pytest.approx(-math.exp(-1.5))
    assert gradient(2.0, advantage=-1.0) == pytest.approx(-1.0)
    assert gradient(2.0, advantage=-1.0, cap=0.25) == pytest.approx(-0.25)
