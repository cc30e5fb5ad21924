"""The language-model head in chunks: log-prob, entropy and the size of the logit gradient without the whole logits.

The logits of `chunk` tokens exist at a time, in at most two float32 tensors, in the forward and in the backward, which computes
them again. The target's logit and the others' are kept apart: of the difference of two numbers near 1 nothing would be left for
a near-certain token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learner.engine.logit_form import LogitForm
from learner.engine.products import add_products, backward_dtype, multiply, multiply_back
from services.models.head_chunk import chunk_tokens

BLOCK_BYTES = 2**22
"""Logits that a CPU takes through all elementwise steps at once: as much as its caches hold. A GPU takes the whole chunk."""
FAR_BELOW = -1e4
"""A log-prob whose exponential is 0, in the place of -inf: 0 x -inf is nan."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is the same for every token."""

    form: LogitForm
    chunk: int
    differentiates_entropy: bool


class _ChunkedStatistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target_ids: Tensor,
        temperature: Tensor | None,
        head: Head,
    ) -> Any:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        factor = _factor(head.form.softcap or head.form.scale, temperature)
        # Of each token: its target's logit, and over the other tokens the largest logit, the sum of e = exp(logit - largest),
        # the root of the sum of e^2, and the sum of e log e.
        found = torch.zeros(5, len(hidden), dtype=wide, device=hidden.device)
        chosen, top, total, norm, weighted = found.unbind()
        room = _Room(hidden, weight, head.chunk, wide, needs_second=True)
        for rows in _steps(len(hidden), head.chunk):
            logits = room.products(hidden[rows], weight, bias)
            for at, block, exps in room.blocks(rows, logits):
                if head.form.softcap is not None:
                    block.mul_(head.form.scale / head.form.softcap).tanh_()
                _scale(block, factor, at)
                target = target_ids[at, None]
                chosen[at] = block.gather(1, target)[:, 0]
                block.scatter_(1, target, -torch.inf)
                torch.amax(block, -1, out=top[at])
                block.sub_(top[at].clamp_(min=torch.finfo(wide).min)[:, None])  # the largest of nothing is -inf
                torch.exp(block, out=exps)
                torch.sum(exps, -1, out=total[at])
                torch.linalg.vector_norm(exps, dim=-1, out=norm[at])
                torch.nansum(block.mul_(exps), -1, out=weighted[at])  # without 0 x -inf
        logp, entropy, residual, log_sum = (x.to(wide) for x in _statistics(*found.double().unbind()))
        ctx.head = head
        ctx.mark_non_differentiable(residual if head.differentiates_entropy else entropy, residual)
        ctx.save_for_backward(hidden, weight, bias, target_ids, temperature, logp, entropy, log_sum)
        return logp, entropy, residual

    @staticmethod
    def backward(ctx: Any, grad_logp: Tensor, grad_entropy: Tensor, *_: Any) -> Any:
        hidden, weight, bias, target_ids, temperature, logp, entropy, log_sum = ctx.saved_tensors
        head: Head = ctx.head
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.empty(weight.shape, dtype=logp.dtype, device=weight.device) if needs_weight else None
        grad_bias = torch.zeros(len(weight), dtype=logp.dtype, device=weight.device) if needs_bias else None
        gradient_of: _PlainGradient | _Gradient
        if head.form.softcap is None and not head.differentiates_entropy:
            gradient_of = _PlainGradient(head, temperature, grad_logp, logp, log_sum)
        else:
            gradient_of = _Gradient(head, temperature, grad_logp, grad_entropy, logp, entropy, log_sum)
        room = _Room(hidden, weight, head.chunk, logp.dtype, needs_second=isinstance(gradient_of, _Gradient))
        for rows in _steps(len(hidden), head.chunk):
            logits = room.products(hidden[rows], weight, bias)
            for at, block, second in room.blocks(rows, logits):
                gradient_of.put(at, block, second, target_ids[at, None])
            sign = gradient_of.sign[rows, None]
            gradient = logits.to(backward_dtype(hidden, logits.dtype))
            if grad_hidden is not None:
                multiply_back(gradient, weight, grad_hidden[rows])
                grad_hidden[rows] *= sign
            if grad_weight is not None:
                add_products(gradient, hidden[rows] * sign.to(hidden.dtype), grad_weight, first=rows.start == 0)
            if grad_bias is not None:
                grad_bias += logits.t() @ sign[:, 0]
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        if grad_bias is not None:
            assert bias is not None
            grad_bias = grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _statistics(
    chosen: Tensor, top: Tensor, total: Tensor, norm: Tensor, weighted: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(logp, entropy, residual, log of the sum over all tokens) from the sums of the forward. All float64 [M]."""
    log_others = top + total.log()
    odds = log_others - chosen  # logarithm of the others' share over the target's
    zero = torch.zeros_like(odds)
    logp, log_rest = -torch.logaddexp(odds, zero), -torch.logaddexp(-odds, zero)
    p, rest = logp.exp(), log_rest.exp()
    entropy_of_others = total.log() - weighted / total
    # Where a share is 0, so is its part of the entropy.
    entropy = -torch.where(p == 0, zero, p * logp) - torch.where(rest == 0, zero, rest * (log_rest - entropy_of_others))
    spread = norm / total.clamp(min=torch.finfo(torch.float32).tiny)
    residual = rest * torch.hypot(torch.ones_like(rest), spread)
    return logp, entropy, residual, torch.logaddexp(log_others, chosen)


class _PlainGradient:
    """d (g logp) / d product = g f (onehot - p), where f = d logit / d product.

    One exponential gives |g f| p; the sign goes to the rows of what it is multiplied with.
    """

    def __init__(self, head: Head, temperature: Tensor | None, g: Tensor, logp: Tensor, log_sum: Tensor) -> None:
        self._factor = _factor(head.form.scale, temperature)
        weight = g * self._factor
        self.sign = -weight.sign()
        self._shift = log_sum - weight.abs().log()
        self._entry = weight.abs() * logp.expm1()
        """At the target: p - 1, of which nothing would be left if p were near 1."""

    def put(self, at: slice, block: Tensor, second: Tensor, target: Tensor) -> None:
        """Turn products into their gradient, but for its sign."""
        _scale(block, self._factor, at)
        block.sub_(self._shift[at, None]).exp_()
        block.scatter_(1, target, self._entry[at, None])


class _Gradient:
    """d (g logp + h entropy) / d product = f (1 - u^2) (g (onehot - p) - h p (log p + entropy)).

    u = tanh(scale x product / softcap), 0 without a softcap.
    """

    def __init__(
        self,
        head: Head,
        temperature: Tensor | None,
        g: Tensor,
        h: Tensor,
        logp: Tensor,
        entropy: Tensor,
        log_sum: Tensor,
    ) -> None:
        self._form = head.form
        self._with_entropy = head.differentiates_entropy
        self._factor = _factor(head.form.softcap or head.form.scale, temperature)
        self._log_sum = log_sum
        f = torch.ones_like(g) * _factor(head.form.scale, temperature)
        h = h if head.differentiates_entropy else torch.zeros_like(g)
        self._slope = -f * h
        self._offset = -f * (g + h * entropy)
        p_log_p = torch.where(torch.isinf(logp), torch.zeros_like(logp), logp.exp() * (logp + entropy))
        self._entry = f * (-g * logp.expm1() - h * p_log_p)
        self.sign = torch.ones_like(g)

    def put(self, at: slice, block: Tensor, second: Tensor, target: Tensor) -> None:
        """Turn products into their gradient."""
        softcap, entry = self._form.softcap, self._entry[at, None]
        if softcap is None:
            _scale(block, self._factor, at)
            block.sub_(self._log_sum[at, None]).clamp_(min=FAR_BELOW)
            torch.exp(block, out=second)
        else:
            u = block.mul_(self._form.scale / softcap).tanh_()
            _scale(second.copy_(u), self._factor, at)
            second.sub_(self._log_sum[at, None]).exp_()
            entry = entry * (1 - u.gather(1, target).square())
            second.mul_(u.add_(1)).mul_(u.neg_().add_(2))  # p (1 + u) (1 - u)
            if self._with_entropy:
                _scale(u.neg_().add_(1), self._factor, at)
                u.sub_(self._log_sum[at, None])
        if self._with_entropy:  # block is log p
            block.mul_(self._slope[at, None]).add_(self._offset[at, None]).mul_(second)
        else:
            torch.mul(second, self._offset[at, None], out=block)
        block.scatter_(1, target, entry)


class _Room:
    """The tensors in which the logits of one chunk after another are computed."""

    def __init__(self, hidden: Tensor, weight: Tensor, chunk: int, wide: torch.dtype, *, needs_second: bool) -> None:
        most, vocabulary = min(chunk, len(hidden)), len(weight)
        self._block = most if hidden.is_cuda else max(1, BLOCK_BYTES // (4 * vocabulary))
        self._first = torch.empty(most, vocabulary, dtype=wide, device=hidden.device)
        self._second = self._first
        if needs_second:
            self._second = torch.empty(min(most, self._block), vocabulary, dtype=wide, device=hidden.device)

    def products(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """hidden weight^T + bias, [m, V]."""
        logits = self._first[: len(hidden)]
        multiply(hidden, weight, logits)
        return logits if bias is None else logits.add_(bias)

    def blocks(self, rows: slice, logits: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(which tokens, their logits, room of the same shape). rows: the tokens of `logits`."""
        for own in _steps(len(logits), self._block):
            at = slice(rows.start + own.start, rows.start + own.stop)
            yield at, logits[own], self._second[: own.stop - own.start]


def _steps(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _factor(scale: float, temperature: Tensor | None) -> Tensor | float:
    """scale / temperature, [M]; temperature: None where it is 1 for every token."""
    return scale if temperature is None else scale / temperature


def _scale(logits: Tensor, factor: Tensor | float, at: slice) -> None:
    """Multiply the logits of these tokens in place."""
    if isinstance(factor, Tensor):
        logits.mul_(factor[at, None])
    elif factor != 1.0:
        logits.mul_(factor)


def token_statistics(
    hidden: Tensor,
    weight: Tensor,
    target_ids: Tensor,
    temperature: Tensor | None,
    *,
    chunk: int,
    bias: Tensor | None = None,
    form: LogitForm = LogitForm(),
    differentiates_entropy: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """(logp of the target, entropy, residual), [M], of p = softmax(logits / temperature), logits = form(hidden weight^T + bias).

    residual: the Euclidean norm of onehot(target) - p, the gradient of logp by the logits at temperature 1.

    hidden: [M, H]; weight: [V, H] and bias: [V], same dtype; target_ids: int64 [M]; temperature: float32 [M], > 0, or None
    where it is 1; chunk: rows of logits at once. In nats, float32 (float64 where hidden is). Gradients flow through logp, and
    through entropy if differentiates_entropy, to hidden, weight and bias.
    """
    head = Head(form, chunk, differentiates_entropy)
    return _ChunkedStatistics.apply(hidden, weight, bias, target_ids, temperature, head)  # type: ignore[no-any-return, no-untyped-call]


class ChunkedHead(nn.Module):
    """Replaces the model's `lm_head`, with the same (possibly tied) weight, so that ZeRO-3 gathers it as before."""

    def __init__(
        self,
        weight: Tensor,
        chunk: int | None,
        *,
        bias: Tensor | None = None,
        form: LogitForm = LogitForm(),
    ) -> None:
        """weight, bias: parameters. chunk: None for as many as services/models/head_chunk.py says."""
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.form = form
        self.chunk = chunk
        self.vocabulary = len(weight)  # at stage 3 the weight itself is empty between two uses
        self.differentiates_entropy = False

    def forward(self, hidden: Tensor, target_ids: Tensor, temperature: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return token_statistics(
            hidden,
            self.weight,
            target_ids,
            temperature,
            chunk=self.chunk or chunk_tokens(self.vocabulary, hidden.device.type),
            bias=self.bias,
            form=self.form,
            differentiates_entropy=self.differentiates_entropy,
        )
