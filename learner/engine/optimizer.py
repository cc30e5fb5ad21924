"""The optimizer under DeepSpeed: AdamW with a step that can be left out, and a bound on what it takes."""

import math
from typing import Any

import torch

from learner.engine.policy_model import PolicyModel, trained_parameters
from services.config.optimizer import OptimizerConfig

LARGEST_NORM = math.sqrt(torch.finfo(torch.float32).max)
"""A longer gradient is not applied: its square overflows in float32, in which all ZeRO stages but 3 compute norms."""


class SkippableAdamW(torch.optim.AdamW):
    """AdamW with a step that can be skipped: DeepSpeed then clears its gradients in its own way and no weight moves."""

    skip = False
    clips_itself = False
    """At stage 0 in float32 gradients are clipped here, because DeepSpeed clips there without saying what the norm was."""
    clip_norm = math.inf
    grad_norm = math.nan
    zero: Any = None
    """DeepSpeed's optimizer around this one, where there is one; it knows the norm before it calls `step`."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if self.skip:
            return
        if self.clips_itself:
            parameters = [p for group in self.param_groups for p in group["params"]]
            self.grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm))
        elif self.zero is not None:
            self.grad_norm = float(self.zero._global_grad_norm)
        if self.grad_norm <= LARGEST_NORM:  # not so for nan
            super().step(closure)


def make_optimizer(policy: PolicyModel, settings: OptimizerConfig, device: torch.device) -> SkippableAdamW:
    """Make the optimizer of the policy's parameters, whose float32 states will lie on `device`.

    On a GPU it is fused: one kernel for the update, without the temporary of 4 bytes a parameter of the ordinary one.
    """
    return SkippableAdamW(
        trained_parameters(policy),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=device.type == "cuda",
    )
