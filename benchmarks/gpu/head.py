"""The head in chunks against its four matrix products and against whole logits: time, memory, and error in bfloat16."""

import gc
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.card import Card, case, row
from benchmarks.gpu.models import vocabulary
from learner.engine.head import token_statistics
from learner.engine.products import adds_to_wider
from services.models.head_chunk import chunk_tokens


def head(card: Card, argument: str) -> None:
    """Forward and backward of 8,192 tokens at hidden size 1,536, bfloat16."""
    tokens, width = (64, 16) if card.cpu else (8192, 1536)
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, device=card.device).bfloat16().requires_grad_()
    weight = (torch.randn(vocabulary(card), width, device=card.device) * 0.04).bfloat16().requires_grad_()
    target = torch.randint(vocabulary(card), (tokens,), device=card.device)
    one = torch.ones(tokens, device=card.device)
    chosen = chunk_tokens(vocabulary(card), card.device.type)

    def clear() -> None:
        hidden.grad = weight.grad = None

    def products() -> None:
        with torch.no_grad():
            for at in range(0, tokens, 1024):
                part = hidden[at : at + 1024]
                logits = part @ weight.t()
                _ = part @ weight.t(), logits @ weight, logits.t() @ part

    def whole() -> Tensor:
        clear()
        log_p = (hidden @ weight.t()).float().log_softmax(-1)
        logp = log_p.gather(1, target[:, None])[:, 0]
        with torch.no_grad():
            _ = -(log_p.exp() * log_p).sum(-1)
        logp.sum().backward()
        return logp.detach()

    def chunked(chunk: int, temperature: Tensor | None) -> Tensor:
        clear()
        logp, *_ = token_statistics(hidden, weight, target, temperature, chunk=chunk)
        logp.sum().backward()
        return logp.detach()

    _, bound_s = card.timed(products, 3)
    row("its four products alone", seconds=bound_s)
    with torch.no_grad():
        truth = torch.cat(
            [
                (hidden[at : at + 512].float() @ weight.float().t())
                .log_softmax(-1)
                .gather(1, target[at : at + 512, None])[:, 0]
                for at in range(0, tokens, 512)
            ]
        )
    ways: list[tuple[str, Callable[[], Tensor]]] = [
        *((f"chunk {chunk}", lambda chunk=chunk: chunked(chunk, one)) for chunk in (512, 1024, 2048)),
        ("chosen chunk, no temperature", lambda: chunked(chosen, None)),
        ("whole logits", whole),
    ]
    for label, work in ways:
        with case(label):
            work()
            clear()
            gc.collect()
            card.forget_peak()
            before_gb = card.peak_gb()
            logp, seconds = card.timed(work, 3)
            row(
                label,
                seconds=seconds,
                over_bound=seconds / bound_s,
                peak_gb_above=card.peak_gb() - before_gb,
                gap_to_float32=float((logp - truth).abs().mean()),
            )
    if card.cpu:
        return
    with case("float32 logits from bfloat16"), torch.no_grad():
        part = hidden[:1024]
        rounded = partial(torch.mm, part, weight.t())
        _, plain_s = card.timed(lambda: rounded().float(), 3)
        logits, direct_s = card.timed(partial(rounded, out_dtype=torch.float32), 3)
        gap = logits.log_softmax(-1).gather(1, target[:1024, None])[:, 0] - truth[:1024]
        row(
            "float32 logits from bfloat16",
            bfloat16_then_float_s=plain_s,
            out_dtype_s=direct_s,
            gap_to_float32=float(gap.abs().mean()) if len(gap) else math.nan,
            sums_in_place=adds_to_wider(card.device, torch.bfloat16, torch.float32),
            chosen_chunk=chosen,
        )
