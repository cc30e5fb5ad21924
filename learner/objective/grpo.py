"""Group-relative policy optimization (arXiv:2402.03300): the clipped surrogate with group advantages, no KL term."""

import torch
from torch import Tensor

from learner.objective.surrogate import clipped_surrogate
from services.config.learner import GrpoObjective


class Grpo:
    needs_reference = False

    def __init__(self, settings: GrpoObjective) -> None:
        self.settings = settings

    def token_weight(self, logp: Tensor, ref_logp: Tensor, sign: Tensor) -> Tensor:
        return torch.ones_like(logp)

    def surrogate(self, logp: Tensor, proximal_logp: Tensor, advantage: Tensor) -> Tensor:
        return clipped_surrogate(logp, proximal_logp, advantage, self.settings.clip)
