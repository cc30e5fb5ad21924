import dataclasses

import pytest
import torch
from hypothesis import given

from learner.objective.p3o import p3o, p3o_ess
from services.config.objectives.p3o import P3oObjective
from tests.learner.objective.strategies import SEEDS, gradient, ragged, tokens_at, tokens_of


@given(SEEDS)
def test_p3o_caps_ratios_at_the_effective_sample_size(seed: int) -> None:
    t = tokens_of(ragged(seed))
    w = (t.current_logp - t.behavior_logp).double().exp()
    ess = float(w.sum() ** 2 / w.square().sum() / len(w))
    got = p3o_ess(t, P3oObjective())
    assert got.item() == pytest.approx(ess, rel=1e-6)
    t = dataclasses.replace(t, statistics=got)
    expected = w.clamp(max=ess) * t.advantage + (1 - ess)
    assert torch.allclose(gradient(p3o(t, P3oObjective()), t).double(), expected, atol=1e-5)


def test_p3o_on_policy_is_reinforce() -> None:
    t = tokens_at([1.0, 1.0], [1.0, -2.0])
    t = dataclasses.replace(t, statistics=p3o_ess(t, P3oObjective()))
    assert gradient(p3o(t, P3oObjective()), t).tolist() == pytest.approx([1.0, -2.0])
