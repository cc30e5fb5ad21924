import dataclasses

import pytest
import torch

from learner.objective.opd import opd
from services.config.objectives.opd import OpdObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_distillation_moves_to_the_teacher_and_can_turn_against_the_verdict() -> None:
    t = tokens_at([1.0, 1.0], [1.0, 1.0])
    t = dataclasses.replace(t, teacher_logp=(t.current_logp + torch.tensor([0.5, -2.0]))[None])
    assert gradient(opd(t, OpdObjective()), t).tolist() == pytest.approx([0.5, -2.0])
    # Negative control of the one-way guarantee: here the verdict was positive and the token goes down.
    assert gradient(opd(t, OpdObjective(outcome=1.0)), t).tolist() == pytest.approx([1.5, -1.0])
