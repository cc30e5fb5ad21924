import dataclasses

import pytest
import torch

from learner.objective.mopd import mopd
from services.config.objectives.mopd import MopdObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_several_teachers_count_in_proportion() -> None:
    t = tokens_at([1.0], [2.0])
    two = t.current_logp + torch.tensor([[1.0], [-1.0]])
    t = dataclasses.replace(t, teacher_logp=two)
    for weights, expected in (((), 2.0), ((3.0, 1.0), 2.5), ((30.0, 10.0), 2.5)):
        assert gradient(mopd(t, MopdObjective(weights=weights)), t).item() == pytest.approx(expected)
