import dataclasses

import pytest
import torch
from hypothesis import given

from learner.objective import OBJECTIVES
from learner.objective.diagnostics import one_way_bounds, sign_fractions
from learner.objective.owpo import owpo_weight
from learner.objective.tokens import Tokens
from services.config.objectives.dapo import DapoObjective
from services.config.objectives.opd import OpdObjective
from services.config.objectives.owpo import OwpoObjective
from services.config.objectives.reinforce import ReinforceObjective
from tests.learner.objective.strategies import SEEDS, ragged, tokens_of


def tokens(advantage: list[float], current: list[float], **others: list[float]) -> Tokens:
    """Log-probs that are not given are the current ones."""
    made = {name: torch.tensor(values) for name, values in others.items()}
    teachers = made.pop("teacher_logp")[None] if "teacher_logp" in made else torch.zeros(0, len(current))
    at = torch.tensor(current)
    return dataclasses.replace(
        tokens_of(ragged(0)),
        logp=at,
        current_logp=at,
        teacher_logp=teachers,
        advantage=torch.tensor(advantage),
        lengths=torch.tensor([len(current)]),
        **{"proximal_logp": at, "behavior_logp": at, "reference_logp": at, **made},
    )


def test_bounds_are_counted_for_each_sign_of_the_advantage() -> None:
    t = tokens([1, 1, 1, -1, -1, 0], [-1.0, -3.0, -2.0, -1.0, -3.0, -2.0], reference_logp=[-2.0] * 6)
    settings = OwpoObjective()
    assert one_way_bounds(t, owpo_weight(t, settings), settings) == pytest.approx(
        {
            "one_way_mean_positive": (0.5 + 2.0 + 1.0) / 3,
            "one_way_mean_negative": (2.0 + 0.5) / 2,
            "one_way_low_positive": 1 / 3,
            "one_way_high_positive": 1 / 3,
            "one_way_low_negative": 1 / 2,
            "one_way_high_negative": 1 / 2,
        }
    )
    without = one_way_bounds(t, torch.ones(6), ReinforceObjective())
    assert {name: value for name, value in without.items() if value} == {
        "one_way_mean_positive": 1.0,
        "one_way_mean_negative": 1.0,
    }


def test_clipped_tokens_are_those_without_gradient_that_have_an_advantage() -> None:
    t = tokens([1, 1, -1, 0], [-1.0, -1.0, -1.0, -1.0], proximal_logp=[-2.0, -1.0, -0.5, -2.0])
    got = sign_fractions(t, OBJECTIVES["dapo"].slope(t, DapoObjective()))
    assert got["clipped_fraction"] == pytest.approx(2 / 3)
    assert got["sign_flipped_fraction"] == 0.0


def test_distillation_flips_where_the_teacher_says_more_than_the_advantage() -> None:
    t = tokens([1, 1, -1, -1], [-2.0] * 4, teacher_logp=[-4.0, -2.5, -0.5, -4.0])
    plain = sign_fractions(t, OBJECTIVES["reinforce"].slope(t, ReinforceObjective()))
    assert plain == {"clipped_fraction": 0.0, "sign_flipped_fraction": 0.0, "distillation_flips_fraction": 0.5}
    distilled = sign_fractions(t, OBJECTIVES["opd"].slope(t, OpdObjective(outcome=1.0)))
    assert distilled["sign_flipped_fraction"] == 0.5
    t = dataclasses.replace(t, teacher_logp=torch.zeros(0, 4), reference_logp=t.teacher_logp[0])
    assert sign_fractions(t, OBJECTIVES["reinforce"].slope(t, ReinforceObjective())) == plain


@given(SEEDS)
def test_one_way_objectives_flip_no_sign(seed: int) -> None:
    t = tokens_of(ragged(seed), on_policy=False)
    assert sign_fractions(t, OBJECTIVES["owpo"].slope(t, OwpoObjective()))["sign_flipped_fraction"] == 0.0
