import math
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from learner.engine.head import token_statistics
from learner.engine.logit_form import LogitForm
from services.models.head_chunk import chunk_tokens


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


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("differentiates_entropy", [False, True])
def test_the_gradients_are_those_of_whole_logits_in_float64(
    differentiates_entropy: bool, softcap: float | None
) -> None:
    tokens, width, vocabulary = 13, 8, 11
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64).requires_grad_()

    given = normal(tokens, width), normal(vocabulary, width), normal(vocabulary)
    hidden, weight, bias = given
    target = torch.randint(0, vocabulary, (tokens,), generator=random)
    temperature = 0.3 + torch.rand(tokens, generator=random, dtype=torch.float64)
    form = LogitForm(scale=0.7, softcap=softcap)
    log_p = (form.of(hidden @ weight.t() + bias) / temperature[:, None]).log_softmax(-1)
    onehot = torch.nn.functional.one_hot(target, vocabulary)
    expected = (
        log_p.gather(1, target[:, None])[:, 0],
        -(log_p.exp() * log_p).sum(-1),
        (onehot - log_p.exp()).norm(dim=-1),
    )
    got = token_statistics(
        hidden,
        weight,
        target,
        temperature,
        chunk=5,
        bias=bias,
        form=form,
        differentiates_entropy=differentiates_entropy,
    )
    for a, b in zip(expected, got, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)
    upstream = torch.randn(2, tokens, generator=random, dtype=torch.float64)
    of = [1.0, float(differentiates_entropy)]
    found = [
        torch.autograd.grad((of[0] * upstream[0] * logp + of[1] * upstream[1] * entropy).sum(), given)
        for logp, entropy, _ in (expected, got)
    ]
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


def test_no_temperature_is_a_temperature_of_one() -> None:
    hidden, weight, target, _ = drawn()
    found = [
        (statistics, torch.autograd.grad(statistics[0].sum(), (hidden, weight)))
        for statistics in (
            token_statistics(hidden, weight, target, temperature, chunk=4) for temperature in (None, torch.ones(13))
        )
    ]
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_head_that_is_not_trained_has_no_gradient() -> None:
    hidden, weight, target, temperature = drawn()
    logp, *_ = token_statistics(hidden, weight.detach(), target, temperature, chunk=4)
    own = torch.autograd.grad(logp.sum(), hidden)[0]
    logp, *_ = token_statistics(hidden, weight, target, temperature, chunk=4)
    assert torch.equal(own, torch.autograd.grad(logp.sum(), hidden)[0])


@pytest.mark.parametrize("upstream", [0.0, math.nan])
def test_what_comes_from_above_goes_through_as_it_is(upstream: float) -> None:
    hidden, weight, target, temperature = drawn(tokens=1)
    logp, *_ = token_statistics(hidden, weight, target, temperature, chunk=1)
    gradients = torch.autograd.grad(logp, (hidden, weight), torch.tensor([upstream]))
    assert all(bool((x == 0).all() if upstream == 0 else x.isnan().all()) for x in gradients)


@pytest.mark.parametrize("differentiates_entropy", [False, True])
def test_a_target_that_cannot_be_has_no_log_prob_and_no_share(differentiates_entropy: bool) -> None:
    hidden, weight = (
        torch.tensor([[1.0]], requires_grad=True),
        torch.tensor([[0.3], [0.1], [-3e38]], requires_grad=True),
    )
    logp, entropy, residual = token_statistics(
        hidden,
        weight,
        torch.tensor([2]),
        torch.full((1,), 1e-3),
        chunk=1,
        differentiates_entropy=differentiates_entropy,
    )
    alone = torch.tensor([300.0, 100.0]).log_softmax(0)
    assert logp.item() == -math.inf
    assert entropy.item() == pytest.approx(float(-(alone.exp() * alone).sum()), abs=1e-6)
    assert residual.item() == pytest.approx(math.hypot(1.0, float(alone.exp().norm())))


def test_a_head_of_one_token_is_certain() -> None:
    logp, entropy, residual = token_statistics(
        torch.ones(1, 1), torch.ones(1, 1), torch.tensor([0]), torch.ones(1), chunk=1
    )
    assert (logp.item(), entropy.item(), residual.item()) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("others", [1e-4, 1e-9])
def test_the_log_prob_of_a_near_certain_token_is_that_of_float64(others: float) -> None:
    hidden, weight = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[0.0], [math.log(others)]])
    logp, *_ = token_statistics(hidden, weight, torch.tensor([0]), None, chunk=1)
    assert logp.item() == pytest.approx(-math.log1p(others), rel=1e-5)


def test_bfloat16_is_multiplied_without_rounding_the_logits() -> None:
    """As the engine does; a logit of 20 would be off by up to 0.06."""
    hidden, weight, target, temperature = drawn(tokens=50, width=64, vocabulary=300)
    halves = (hidden.detach() * 3).bfloat16(), weight.detach().bfloat16()
    got = token_statistics(*halves, target, temperature, chunk=16)
    wide = halves[0].double(), halves[1].double()
    expected = token_statistics(*wide, target, temperature.double(), chunk=50)
    for a, b in zip(got, expected, strict=True):
        assert float((a - b).abs().max()) < 1e-4


@pytest.mark.parametrize(("device", "expected"), [("cuda", 883), ("cpu", 110)])
def test_the_chunk_is_chosen_by_the_vocabulary(device: str, expected: int) -> None:
    assert chunk_tokens(151_936, device) == expected
    assert chunk_tokens(10**9, device) == 1


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


class Logits(TorchDispatchMode):
    """The most memory that tensors of at least `elements` elements took at once, in such tensors of float32."""

    def __init__(self, elements: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = elements
        self.alive: dict[int, int] = {}
        self.most = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.nbytes() >= 2 * self.elements and storage.data_ptr() not in self.alive:
                    self.alive[storage.data_ptr()] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage.data_ptr(), None)
                    self.most = max(self.most, sum(self.alive.values()) / (4 * self.elements))
        return out


@pytest.mark.parametrize("softcap", [None, 30.0])
@pytest.mark.parametrize("differentiates_entropy", [False, True])
@pytest.mark.parametrize("chunk", [16, 64])
def test_at_most_two_tensors_of_a_chunk_of_logits_exist_at_once(
    chunk: int, differentiates_entropy: bool, softcap: float | None
) -> None:
    tokens, vocabulary = 512, 1000
    hidden, weight, target, temperature = drawn(tokens, width=4, vocabulary=vocabulary)
    with Logits(chunk * vocabulary) as seen:
        logp, entropy, _ = token_statistics(
            hidden,
            weight,
            target,
            temperature,
            chunk=chunk,
            form=LogitForm(softcap=softcap),
            differentiates_entropy=differentiates_entropy,
        )
        torch.autograd.grad((logp + entropy).sum() if differentiates_entropy else logp.sum(), (hidden, weight))
    assert 1 <= seen.most <= 2
