"""The kernel for normalization gives what vLLM's own operations give, and takes only what it can."""

import pytest
import torch
from vllm import ir
from vllm.platforms import current_platform

from rollout.vllm import cpu_norm

NAME = "ratchet_tests"
EPSILON = 1e-6


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    current_platform.import_kernels()
    cpu_norm.register(NAME)
    cpu_norm.register(NAME)  # a second engine in one process


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3 + 0.5


@pytest.mark.parametrize("shape", [(1, 128), (257, 128), (5, 3, 48), (2, 7, 4, 64), (3, 16)])
def test_it_gives_what_the_operations_give(shape: tuple[int, ...]) -> None:
    x, residual, weight = random(*shape), random(*shape, seed=1), random(shape[-1], seed=2)
    before = x.clone(), residual.clone()
    native, ours = ir.ops.rms_norm.impls["native"].impl_fn, ir.ops.rms_norm.impls[NAME].impl_fn
    torch.testing.assert_close(ours(x, weight, EPSILON), native(x, weight, EPSILON), rtol=1e-5, atol=1e-6)
    native, ours = ir.ops.fused_add_rms_norm.impls["native"].impl_fn, ir.ops.fused_add_rms_norm.impls[NAME].impl_fn
    for got, expected in zip(ours(x, residual, weight, EPSILON), native(x, residual, weight, EPSILON), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


def test_what_it_does_not_take_stays_with_the_operations() -> None:
    takes = ir.ops.rms_norm.impls[NAME].supports_args
    x, weight = random(4, 128), random(128)
    assert takes(x, weight, EPSILON)
    assert not takes(x, None, EPSILON)
    assert not takes(x, weight, EPSILON, 64)  # normalized over a part
    assert not takes(x.bfloat16(), weight.bfloat16(), EPSILON)
    assert not takes(x, weight.bfloat16(), EPSILON)
    assert not takes(random(128, 4).T, weight, EPSILON)
    assert not takes(random(4, 120), random(120), EPSILON)  # the kernel has nothing for a rest of eight
    takes = ir.ops.fused_add_rms_norm.impls[NAME].supports_args
    assert takes(x, x, weight, EPSILON)
    assert not takes(x, x.bfloat16(), weight, EPSILON)
    assert not takes(x.bfloat16(), x, weight.bfloat16(), EPSILON)
