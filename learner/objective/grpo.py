"""GRPO (arXiv:2402.03300): PPO's clipped surrogate with group-relative advantages, here without the KL term.

    maximize  min(r A, clip(r, 1 - low, 1 + high) A),   r = current / proximal

Published with A = (R - group mean) / (sample deviation + 1e-6) and a mean over each sequence's tokens. Dr. GRPO, DAPO and MC-GRPO
have the same surrogate: what sets them apart is the clip range, the advantage and what sums are divided by.
"""

from typing import Protocol

from torch import Tensor

from learner.objective.base import Objective
from learner.objective.surrogate import clipped_surrogate
from learner.objective.tokens import Tokens
from services.config.objectives.base import ClipRange


class ClippedSettings(Protocol):
    """Settings of an objective that has this surrogate."""

    @property
    def clip(self) -> ClipRange: ...
    @property
    def dual_clip(self) -> float | None: ...


def grpo(tokens: Tokens, settings: ClippedSettings) -> Tensor:
    """min(r A, clip(r) A), r = current/proximal, with dual clip where it is set. [T]."""
    return clipped_surrogate(tokens.logp, tokens.proximal_logp, tokens.advantage, settings.clip, settings.dual_clip)


OBJECTIVE = Objective(grpo)
