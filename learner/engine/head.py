"""The language-model head in chunks: log-prob, entropy and the size of the logit gradient without the whole logits.

At most `chunk` rows of logits exist at once, in the forward and in the backward, which computes them again.
"""

from typing import Any

import torch
from torch import Tensor, nn


class _ChunkedStatistics(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        target_ids: Tensor,
        temperature: Tensor,
        chunk: int,
        differentiates_entropy: bool,
    ) -> Any:
        ctx.chunk = chunk
        statistics = torch.empty(3, len(hidden), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), chunk):
            end = start + chunk
            log_p = _logits(hidden[start:end], weight, temperature[start:end]).log_softmax(-1)
            statistics[0, start:end] = log_p.gather(1, target_ids[start:end, None])[:, 0]
            p = log_p.exp()
            # A logit of -inf has p = 0 and p log p = 0; p x log_p alone would be nan.
            statistics[1, start:end] = -torch.where(p > 0, p * log_p, torch.zeros_like(p)).sum(-1)
            # From the other tokens alone: of 1 - 2 p + sum p^2 nothing would be left for a near-certain token. Squares are of
            # shares of their sum, or those of small probabilities would be 0.
            others = p.scatter_(1, target_ids[start:end, None], 0.0)
            rest = others.sum(-1)  # 1 - p of the target
            shares = others.div_(rest.clamp(min=torch.finfo(torch.float32).tiny)[:, None])
            spread = torch.linalg.vector_norm(shares, dim=-1)
            statistics[2, start:end] = rest * torch.hypot(torch.ones_like(rest), spread)
        logp, entropy, residual = statistics.unbind()
        ctx.differentiates_entropy = differentiates_entropy
        ctx.mark_non_differentiable(residual if differentiates_entropy else entropy, residual)
        ctx.save_for_backward(hidden, weight, target_ids, temperature, entropy)
        return logp, entropy, residual

    @staticmethod
    def backward(ctx: Any, grad_logp: Tensor, grad_entropy: Tensor, *_: Any) -> Any:
        hidden, weight, target_ids, temperature, entropy = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        for start in range(0, len(hidden), ctx.chunk):
            end = start + ctx.chunk
            # d logp / d logits = (onehot - p) / temperature
            p = _logits(hidden[start:end], weight, temperature[start:end]).softmax(-1).neg_()
            p.scatter_add_(1, target_ids[start:end, None], torch.ones_like(p[:, :1]))
            grad_logits = p.mul_((grad_logp[start:end] / temperature[start:end])[:, None])
            if ctx.differentiates_entropy:
                grad_logits += _entropy_gradient(
                    _logits(hidden[start:end], weight, temperature[start:end]), entropy[start:end]
                ).mul_((grad_entropy[start:end] / temperature[start:end])[:, None])
            grad_logits = grad_logits.to(hidden.dtype)
            torch.mm(grad_logits, weight, out=grad_hidden[start:end])
            if hidden.dtype == torch.float32:
                grad_weight.addmm_(grad_logits.t(), hidden[start:end])
            else:
                grad_weight += grad_logits.t() @ hidden[start:end]
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None, None


def _entropy_gradient(logits: Tensor, entropy: Tensor) -> Tensor:
    """d entropy / d logits = -p (log p + entropy), 0 where p is 0. [M, V]."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    return torch.where(p > 0, -p * (log_p + entropy[:, None]), torch.zeros_like(p))  # 0 x -inf is nan


def _logits(hidden: Tensor, weight: Tensor, temperature: Tensor) -> Tensor:
    return (hidden @ weight.t()).float() / temperature[:, None]


def token_statistics(
    hidden: Tensor,
    weight: Tensor,
    target_ids: Tensor,
    temperature: Tensor,
    *,
    chunk: int,
    differentiates_entropy: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """(logp of the target, entropy, residual), float32 [M], of p = softmax(hidden weight^T / temperature).

    residual: the Euclidean norm of onehot(target) - p, the gradient of logp by the logits at temperature 1.

    hidden: [M, H]; weight: [V, H], same dtype; target_ids: int64 [M]; temperature: float32 [M], > 0; chunk: rows of logits
    at once. In nats. Gradients flow through logp, and through entropy if differentiates_entropy, to hidden and weight.
    """
    return _ChunkedStatistics.apply(hidden, weight, target_ids, temperature, chunk, differentiates_entropy)  # type: ignore[no-any-return, no-untyped-call]


class ChunkedHead(nn.Module):
    """Replaces the model's `lm_head`, with the same (possibly tied) weight, so that ZeRO-3 gathers it as before."""

    def __init__(self, weight: nn.Parameter, chunk: int) -> None:
        super().__init__()
        self.weight = weight
        self.chunk = chunk
        self.differentiates_entropy = False

    def forward(self, hidden: Tensor, target_ids: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return token_statistics(
            hidden,
            self.weight,
            target_ids,
            temperature,
            chunk=self.chunk,
            differentiates_entropy=self.differentiates_entropy,
        )
