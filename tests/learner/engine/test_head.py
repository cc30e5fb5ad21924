import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from learner.engine.head import token_statistics


def drawn(
    tokens: int = 13, width: int = 8, vocabulary: int = 11, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=random).requires_grad_()
    weight = torch.randn(vocabulary, width, generator=random).requires_grad_()
    temperature = 0.3 + torch.rand(tokens, generator=random)
    return hidden, weight, torch.randint(0, vocabulary, (tokens,), generator=random), temperature


def whole(hidden: Tensor, weight: Tensor, target: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    log_p = ((hidden @ weight.t()) / temperature[:, None]).log_softmax(-1)
    p = log_p.exp()
    onehot = torch.nn.functional.one_hot(target, p.shape[1])
    return log_p.gather(1, target[:, None])[:, 0], -(p * log_p).sum(-1), (onehot - p).norm(dim=-1)


@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 1000))
def test_chunks_give_what_the_whole_gives_gradients_included(tokens: int, chunk: int, seed: int) -> None:
    hidden, weight, target, temperature = drawn(tokens, seed=seed)
    upstream = torch.randn(tokens, generator=torch.Generator().manual_seed(seed + 1))
    expected, got = (
        whole(hidden, weight, target, temperature),
        token_statistics(hidden, weight, target, temperature, chunk=chunk),
    )
    for a, b in zip(expected, got, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad((expected[0] * upstream).sum(), (hidden, weight)),
        torch.autograd.grad((got[0] * upstream).sum(), (hidden, weight)),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4)


@given(st.integers(1, 12), st.integers(1, 20), st.integers(0, 1000))
def test_the_gradient_of_the_entropy_is_that_of_the_whole(tokens: int, chunk: int, seed: int) -> None:
    hidden, weight, target, temperature = drawn(tokens, seed=seed)
    upstream = torch.randn(2, tokens, generator=torch.Generator().manual_seed(seed + 1))
    expected = whole(hidden, weight, target, temperature)
    got = token_statistics(hidden, weight, target, temperature, chunk=chunk, differentiates_entropy=True)
    found = [
        torch.autograd.grad((upstream[0] * logp + upstream[1] * entropy).sum(), (hidden, weight))
        for logp, entropy, _ in (expected, got)
    ]
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_token_that_cannot_be_has_no_part_in_the_gradient_of_the_entropy() -> None:
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[0.3], [0.1], [-3e38]], requires_grad=True)
    _, entropy, _ = token_statistics(
        hidden, weight, torch.tensor([0]), torch.full((1,), 1e-3), chunk=1, differentiates_entropy=True
    )
    (at,) = torch.autograd.grad(entropy.sum(), weight)
    assert torch.isfinite(at).all()


def test_only_log_probs_carry_a_gradient() -> None:
    logp, entropy, residual = token_statistics(*drawn(), chunk=4)
    assert (logp.requires_grad, entropy.requires_grad, residual.requires_grad) == (True, False, False)


def test_certainty_has_no_entropy_and_is_not_nan() -> None:
    hidden, weight = torch.tensor([[1e4]]), torch.tensor([[1.0], [-1.0]])
    logp, entropy, residual = token_statistics(hidden, weight, torch.tensor([0]), torch.ones(1), chunk=1)
    assert (logp.item(), entropy.item(), residual.item()) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("others", [1e-2, 1e-4, 1e-6, 1e-9, 1e-15, 1e-25, 1e-35])
def test_the_residual_of_a_near_certain_token_is_that_of_float64(others: float) -> None:
    """A token of probability 1 - `others`, the rest spread unevenly over ten: as 1 - 2p + sum p^2 in float32 it would be 0."""
    shares = torch.arange(1, 11, dtype=torch.float64)
    p = torch.cat([torch.tensor([1 - others], dtype=torch.float64), others * shares / shares.sum()])
    logits = p.log()[:, None].float()
    _, _, residual = token_statistics(torch.ones(1, 1), logits, torch.tensor([0]), torch.ones(1), chunk=1)
    expected = others * math.sqrt(1 + float((shares / shares.sum()).square().sum()))
    assert residual.item() == pytest.approx(expected, rel=1e-5)


def test_bfloat16_statistics_are_float32() -> None:
    hidden, weight, target, temperature = drawn()
    halves = (hidden.detach().bfloat16().requires_grad_(), weight.detach().bfloat16().requires_grad_())
    logp, *_ = token_statistics(*halves, target, temperature, chunk=4)
    assert logp.dtype == torch.float32
    gradients = torch.autograd.grad(logp.sum(), halves)
    exact = torch.autograd.grad(whole(hidden, weight, target, temperature)[0].sum(), (hidden, weight))
    for a, b in zip(gradients, exact, strict=True):
        assert a.dtype == torch.bfloat16
        assert float((a.float() - b).norm() / b.norm()) < 0.05


class LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("chunk", [1, 8, 64])
def test_logits_are_never_whole_forward_or_backward(chunk: int) -> None:
    tokens, vocabulary = 512, 1000
    hidden, weight, target, temperature = drawn(tokens, width=4, vocabulary=vocabulary)
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        logp, *_ = token_statistics(hidden, weight, target, temperature, chunk=chunk)
        torch.autograd.grad(logp.sum(), (hidden, weight))
    assert largest.elements <= max(chunk * vocabulary, weight.numel(), hidden.numel())
    assert largest.elements < tokens * vocabulary / 7
