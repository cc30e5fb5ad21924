from typing import Literal

import pytest

from services.config.advantage import AdvantageConfig
from services.config.learner import LearnerConfig
from services.config.model import TeacherConfig
from services.config.objectives.base import ClipRange, ObjectiveSettings
from services.config.objectives.decoupled_ppo import DecoupledPpoObjective
from services.config.objectives.mopd import MopdObjective
from services.config.objectives.opmd import OpmdObjective
from services.config.objectives.popo import PopoObjective
from services.config.objectives.registry import OURS


class Narrow(ObjectiveSettings):
    """An objective with a clip of its own."""

    type: Literal["narrow"] = "narrow"
    clip: ClipRange = ClipRange(low=0.01, high=0.02)


def test_a_section_that_is_given_in_part_keeps_this_objective_s_own_defaults() -> None:
    assert Narrow.model_validate({"clip": {"high": 0.5}}).clip == ClipRange(low=0.01, high=0.5)
    assert Narrow.model_validate({}).clip == ClipRange(low=0.01, high=0.02)
    with pytest.raises(ValueError, match="hihg"):
        Narrow.model_validate({"clip": {"hihg": 0.5}})


def test_what_has_to_be_scored_follows_from_the_settings() -> None:
    assert Narrow().needs_proximal
    assert not Narrow().needs_hidden
    assert DecoupledPpoObjective().needs_proximal
    assert not DecoupledPpoObjective(proximal="log_linear").needs_proximal
    assert PopoObjective().needs_hidden
    assert not PopoObjective(alpha=0.0).needs_hidden


def learner(**changes: object) -> LearnerConfig:
    return LearnerConfig(steps=1, groups_per_step=1).model_copy(update=changes)


def test_only_what_contradicts_the_settings_is_a_disagreement() -> None:
    assert Narrow().disagreement(learner()) is None
    log_mean_exp = learner(advantage=AdvantageConfig(baseline="log_mean_exp", tau=1.0))
    assert OpmdObjective(tau=1.0).disagreement(log_mean_exp) is None
    assert OpmdObjective(tau=0.5).disagreement(learner()) is None
    assert "differ" in (OpmdObjective(tau=0.5).disagreement(log_mean_exp) or "")
    two = learner(teachers=(TeacherConfig(path="a"), TeacherConfig(path="b")))
    assert MopdObjective().disagreement(two) is None
    assert MopdObjective(weights=(1.0, 2.0)).disagreement(two) is None
    assert MopdObjective(weights=(1.0,)).disagreement(two) == "has 1 weights for 2 teachers; give one each"


@pytest.mark.parametrize("kind", OURS)
def test_what_an_objective_was_published_with_is_valid(kind: str) -> None:
    """Each key of `published` is one of [learner], with a value that it takes."""
    published = OURS[kind].published
    assert set(published) <= set(LearnerConfig.model_fields)
    needed = {"constant_tokens": 4} if published.get("aggregation") == "constant" else {}
    LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1, **published, **needed})
