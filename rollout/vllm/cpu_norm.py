"""vLLM's own kernel for normalization on a CPU, which vLLM takes on GPUs only.

On a CPU vLLM leaves it to torch's compiler to fuse what normalization consists of. An eager engine has no compiler, and runs
six operations where one would do.
"""

from typing import Any, cast

import torch
from vllm import ir

LANES = 16
"""The kernel computes this many numbers at a time and has nothing for a rest. On a narrower processor they are eight."""


def register(provider: str) -> None:
    """Make the kernel known to vLLM under this name, in the process that computes the model. May be called again."""
    if provider in ir.ops.rms_norm.impls:
        return

    def is_taken(
        x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> bool:
        """Half precision stays with vLLM's operations: they round before the weight is multiplied, as the learner's do."""
        is_plain = weight is not None and variance_size is None and x.is_contiguous() and x.shape[-1] % LANES == 0
        return is_plain and x.dtype == torch.float32 == cast(torch.Tensor, weight).dtype

    def is_sum_taken(
        x: torch.Tensor,
        x_residual: torch.Tensor,
        weight: torch.Tensor | None,
        epsilon: float,
        variance_size: int | None = None,
    ) -> bool:
        return is_taken(x, weight, epsilon, variance_size) and x_residual.dtype == torch.float32

    @cast(Any, ir.ops.rms_norm).register_impl(provider, supports_args=is_taken)  # type: ignore[untyped-decorator]
    def rms_norm(
        x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
    ) -> torch.Tensor:
        return _normed(x, weight, epsilon)

    @cast(Any, ir.ops.fused_add_rms_norm).register_impl(provider, supports_args=is_sum_taken)  # type: ignore[untyped-decorator]
    def fused_add_rms_norm(
        x: torch.Tensor,
        x_residual: torch.Tensor,
        weight: torch.Tensor | None,
        epsilon: float,
        variance_size: int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Not vLLM's kernel for both, which writes over its inputs: these may be used again.
        added = x + x_residual
        return _normed(added, weight, epsilon), added


def _normed(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float) -> torch.Tensor:
    normed = torch.empty_like(x)
    torch.ops._C.rms_norm(normed, x, weight, epsilon)
    return normed
