"""The clipped policy-gradient surrogate that the objectives share."""

import torch
from torch import Tensor

from services.config.learner import ClipRange


def clipped_surrogate(logp: Tensor, proximal_logp: Tensor, advantage: Tensor, clip: ClipRange) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A) with r = current/proximal (PPO, arXiv:1707.06347). float32 [T].

    Gradient through logp alone. With one optimizer step a batch r is 1 and the gradient is A grad logp.
    """
    ratio = (logp - proximal_logp.detach()).clamp(-20.0, 20.0).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip.low, 1 + clip.high) * advantage)
