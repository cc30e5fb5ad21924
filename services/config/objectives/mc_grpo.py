"""MC-GRPO. Its functions: learner/objective/mc_grpo.py."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from services.config.effect import SEVERAL_STEPS
from services.config.objectives.base import PLAIN, SYMMETRIC, ClipRange, DualClip, ObjectiveSettings


class McGrpoObjective(ObjectiveSettings):
    """MC-GRPO (our reading of its abstract): the group's median as baseline, and the sequence that has it left out.

    Needs an odd rollout.sampling.group_size. Not as published: the released code also divides by a median absolute deviation,
    which is 0 for most groups of binary rewards; learner.advantage.normalize = "median_deviation" does that, too.
    """

    published: ClassVar[Mapping[str, Any]] = {**PLAIN, "advantage": {"baseline": "median", "normalize": "none"}}
    baselines: ClassVar[tuple[str, ...]] = ("median",)
    type: Literal["mc_grpo"] = "mc_grpo"
    clip: Annotated[ClipRange, SEVERAL_STEPS] = SYMMETRIC
    """Range of the ratio current/proximal. Acts only with learner.mini_batches above 1."""
    dual_clip: Annotated[DualClip, SEVERAL_STEPS] = None
    """Bound on the loss of a token with a negative advantage, in multiples of |A|; unset: none."""
