import dataclasses
import math

import pytest
import torch

from learner.objective.decoupled_ppo import decoupled_ppo, log_linear_proximal
from services.config.objectives.decoupled_ppo import DecoupledPpoObjective
from tests.learner.objective.strategies import gradient, tokens_at


def test_decoupled_ppo_bounds_the_mismatch_not_the_ratio() -> None:
    """proximal/behavior 2 and 8, current/proximal 1: above the cap of 5 a token is left out, or cut."""
    t = tokens_at([2.0, 8.0], [1.0, 1.0], over="behavior")
    assert gradient(decoupled_ppo(t, DecoupledPpoObjective()), t).tolist() == pytest.approx([2.0, 0.0])
    cut = DecoupledPpoObjective(above_cap="truncate")
    assert gradient(decoupled_ppo(t, cut), t).tolist() == pytest.approx([2.0, 5.0])


def test_decoupled_ppo_clips_around_the_proximal_policy() -> None:
    t = tokens_at([1.5, 1.1], [1.0, 1.0])
    t = dataclasses.replace(t, behavior_logp=t.proximal_logp)
    assert gradient(decoupled_ppo(t, DecoupledPpoObjective()), t).tolist() == pytest.approx([0.0, 1.1])


def test_the_log_linear_proximal_policy_moves_from_behavior_to_current_with_lag() -> None:
    t = tokens_at([math.e] * 5, [1.0] * 5, over="behavior", lag_steps=torch.tensor([0, 1, 2, 4, -3]))
    share = log_linear_proximal(t, "current") - t.behavior_logp
    assert share.tolist() == pytest.approx([1.0, 0.0, 0.5, 0.75, 0.0])
    share = log_linear_proximal(t, "behavior") - t.behavior_logp
    assert share.tolist() == pytest.approx([0.0, 0.0, 0.5, 0.75, 0.0])


def test_at_lag_zero_there_is_a_trust_region_only_around_the_behavior_policy() -> None:
    """A token without lag that later optimizer steps on its batch have moved to 1.5 of what sampled it."""
    t = tokens_at([1.5], [1.0], over="behavior")
    free = DecoupledPpoObjective(proximal="log_linear")
    held = DecoupledPpoObjective(proximal="log_linear", at_lag_zero="behavior")
    assert gradient(decoupled_ppo(t, free), t).tolist() == pytest.approx([1.5])
    assert gradient(decoupled_ppo(t, held), t).tolist() == [0.0]  # beyond 1.2
