"""The attention function that transformers calls in each layer: a causal attention for each span of a micro-batch.

It is registered under a name that has no mask, so that transformers builds none, and takes the spans as a keyword that the
model passes on to its layers. What it does not know, it refuses: choice.py asks before a model gets it.
"""

import contextlib
import inspect
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from learner.engine.attention.layout import SpanLayout

NAME = "ratchet_by_span"
KEYWORD = "span_layout"
"""Under which a model's forward takes the SpanLayout, to pass it on to its attention layers."""
PLAIN = frozenset(
    {"position_ids", "use_cache", "output_attentions", "output_hidden_states", "output_router_logits", "return_dict"}
)
"""Keywords of models that say nothing about which keys a query sees, or how they are weighed."""
LARGEST_FLASH_HEAD = 256
NOT_CUDNN = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""cuDNN makes a plan for each shape that it meets, 0.3 s on an H200, and the lengths of sequences are ever new ones."""


class NotBySpan(Exception):
    """An attention layer asks for something that this function does not compute. The message completes "it ..."."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    span_layout: SpanLayout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """query: [R, H, S, D]. key, value: [R, K, S, D] and [R, K, S, E], H a multiple of K. Returns [R, S, H, E], zeros or
    anything else finite where there is padding.

    sliding_window: keys up to its own that a query sees at most. softcap: scores are softcap x tanh(score / softcap).
    Raises NotBySpan for whatever else a layer may ask for.
    """
    unknown = sorted(name for name, given in others.items() if name not in PLAIN and given is not None)
    if unknown:
        raise NotBySpan(f"gives its attention {', '.join(unknown)}")
    if attention_mask is not None:
        raise NotBySpan("makes a mask of its own")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        raise NotBySpan("lets tokens see those behind them")
    if dropout:
        raise NotBySpan("drops attention weights")
    if span_layout is None:
        raise NotBySpan("does not pass keywords on to its attention layers")
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    rows, heads, width, _ = query.shape
    q, k, v = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))  # [R * S, heads, D]
    if softcap is None and _fits_flash(q, v, sliding_window):
        out = _ragged(q, k, v, span_layout, scale, sliding_window)
    else:
        out = _by_shape(q, k, v, span_layout, scale, sliding_window, softcap)
    return out.view(rows, width, heads, -1), None


AttentionInterface.register(NAME, attend)


def _fits_flash(q: Tensor, v: Tensor, window: int | None) -> bool:
    return (
        q.is_cuda
        and q.dtype in (torch.bfloat16, torch.float16)
        and q.shape[-1] == v.shape[-1]
        and q.shape[-1] % 8 == 0
        and q.shape[-1] <= LARGEST_FLASH_HEAD
        and (window is None or "window_size" in _keywords_of_varlen())
    )


@cache
def _keywords_of_varlen() -> frozenset[str]:
    """The keywords differ between versions of torch: windows came after is_causal, and fewer heads of keys after both."""
    from torch.nn.attention.varlen import varlen_attn

    return frozenset(inspect.signature(varlen_attn).parameters)


def _ragged(q: Tensor, k: Tensor, v: Tensor, layout: SpanLayout, scale: float, window: int | None) -> Tensor:
    """All spans in one call of FlashAttention, whose queries are the last of their keys. CUDA only."""
    from torch.nn.attention.varlen import varlen_attn

    ragged = layout.ragged
    if ragged.key_index is not None:
        k, v = k[ragged.key_index], v[ragged.key_index]
    left = -1 if window is None or window >= ragged.most_keys else window - 1  # keys before a query's own
    known = _keywords_of_varlen()
    how: dict[str, Any] = {"window_size": (left, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        how["enable_gqa"] = True
    else:
        k, v = (states.repeat_interleave(q.shape[1] // states.shape[1], 1) for states in (k, v))
    out = varlen_attn(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        ragged.cu_queries,
        ragged.cu_keys,
        ragged.most_queries,
        ragged.most_keys,
        scale=scale,
        **how,
    )
    assert isinstance(out, Tensor)  # it returns more where it is asked for more
    return out


def _by_shape(
    q: Tensor, k: Tensor, v: Tensor, layout: SpanLayout, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """Spans with as many queries and keys in one call: a batch of short answers has hundreds of spans and a dozen shapes."""
    by_shape = layout.by_shape
    queries = _picked(q, by_shape.query_index)
    keys, values = (_picked(states, by_shape.key_index) for states in (k, v))
    # Split once: the gradient of a split is one concatenation, that of a slice a tensor of the size of the whole.
    parts = zip(
        by_shape.shapes,
        queries.split([shape.spans * shape.queries for shape in by_shape.shapes]),
        keys.split([shape.spans * shape.keys for shape in by_shape.shapes]),
        values.split([shape.spans * shape.keys for shape in by_shape.shapes]),
        strict=True,
    )
    out = []
    for shape, *flat in parts:
        if shape.is_padding:
            out.append(q.new_zeros(shape.queries, q.shape[1], v.shape[-1]))
            continue
        own_q, own_k, own_v = (states.unflatten(0, (shape.spans, -1)) for states in flat)
        own = _alike(own_q, own_k, own_v, layout, scale, window, softcap)
        out.append(own[:, shape.repeated :].flatten(0, 1))
    return _picked(torch.cat(out), by_shape.back_index)


def _picked(states: Tensor, index: Tensor | None) -> Tensor:
    """Rows of a tensor; None: all of them, as they are."""
    if index is None:
        return states
    # The gradient of the first is many times faster on a CPU, and depends on the order of threads on CUDA.
    return states[index] if states.is_cuda else states.index_select(0, index)


def _alike(
    q: Tensor, k: Tensor, v: Tensor, layout: SpanLayout, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """Spans of one shape. q: [B, L, H, D]; k, v: [B, M, K, D], the last key being the last query's own. Returns [B, L, H, E]."""
    queries, keys = q.shape[1], k.shape[1]
    if window is not None and window >= keys:
        window = None
    if softcap is not None:
        return weigh(q, k, v, layout.mask(queries, keys, window), scale, softcap)
    is_whole = window is None and queries == keys
    shared = q.shape[2] // k.shape[2]
    # Fewer heads of keys than of queries: with a mask, or on CUDA, only the slow kernel takes them as they are.
    as_they_are = is_whole and not q.is_cuda
    if shared > 1 and not as_they_are:
        k, v = k.repeat_interleave(shared, 2), v.repeat_interleave(shared, 2)
    mask = None if is_whole else layout.mask(queries, keys, window)
    q, k, v = (states.transpose(1, 2) for states in (q, k, v))
    with sdpa_kernel(NOT_CUDNN) if q.is_cuda else contextlib.nullcontext():
        out = scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=is_whole, scale=scale, enable_gqa=as_they_are and shared > 1
        )
    return out.transpose(1, 2)


def weigh(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, softcap: float | None) -> Tensor:
    """Attention in plain operations, softmax in float32, as transformers computes it where there is no kernel.

    q: [..., L, H, D]; k, v: [..., M, K, D] and [..., M, K, E]; mask: bool [L, M]. Returns [..., L, H, E].
    """
    q = q.unflatten(-2, (k.shape[-2], -1))  # [..., L, K, H / K, D]
    scores = torch.einsum("...lkgd,...mkd->...kglm", q, k) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(q.dtype)
    return torch.einsum("...kglm,...mke->...lkge", weights, v).flatten(-3, -2)
