import math

import pytest
import torch
from pydantic import ValidationError

from learner.objective.minpro import minpro, smallest_before
from services.config.objectives.base import ClipRange
from services.config.objectives.minpro import MinproObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_minpro_weighs_by_the_smallest_ratio_before() -> None:
    t = tokens_at([2.0, 0.5, 4.0, 3.0, 2.0], [1.0] * 5, [4, 1], over="behavior")
    assert gradient(minpro(t, MinproObjective(cap=100.0)), t).tolist() == pytest.approx([2.0, 1.0, 2.0, 1.5, 2.0])
    assert gradient(minpro(t, MinproObjective(cap=1.5)), t).max().item() == pytest.approx(1.5)


def test_minpro_clips_where_the_second_hand_form_is_asked_for() -> None:
    t = tokens_at([2.0, 0.5, 1.1, 3.0, 1.0], [1.0, 1.0, -1.0, 1.0, -1.0], [4, 1], over="behavior")
    clip = MinproObjective(clip=ClipRange(low=0.2, high=0.28))
    assert gradient(minpro(t, clip), t).tolist() == pytest.approx([1.28, 1.0, -0.8, 1.28, -1.0])
    with pytest.raises(ValidationError, match="leave one of them out"):
        MinproObjective(clip=ClipRange(), cap=3.0)


def test_the_smallest_before_starts_again_with_each_sequence() -> None:
    got = smallest_before(torch.tensor([3.0, 1.0, 2.0, 5.0]), torch.tensor([3, 0, 1]))
    assert got.tolist() == [math.inf, 3.0, 1.0, math.inf]
    assert len(smallest_before(torch.zeros(0), torch.zeros(2, dtype=torch.int64))) == 0
