"""Whether a model gets attention by spans: it is asked for its masks, and its attention is computed both ways.

A model says which keys a query sees in two places: in the masks that it has transformers build, and in the keywords of its
attention layers. Attention by spans sees the keywords alone. So the model runs once over a few tokens with masks that keep the
rule they are made by, and each layer's rule is compared with its keywords, far beyond those few tokens: a window of 4,096 or
chunks of 8,192 show there.
"""

import itertools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from learner.engine.attention.by_span import KEYWORD, NAME, NotBySpan, attend, weigh
from learner.engine.attention.layout import SpanLayout, rows_alone

log = logging.getLogger("ratchet.learner")

ASKED = "ratchet_asked"
"""The attention, and the masks, of the one forward in which a model is asked."""
TOKENS = 8
"""How many that forward has."""
FAR = sorted({0, 1, 2, 3, *(2**n + step for n in range(3, 20) for step in (-1, 0, 1))})
"""Positions of queries and keys, for which a mask is asked: any window or chunk below 500,000 tokens cuts between two of them."""
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}
"""Largest difference of two computations of one layer's attention, over its largest output."""
CLOSE_HIDDEN = 1e-2
"""Difference of the last hidden states, over their size, in the median of tokens: a router that rounding turns may change one."""
ROUNDINGS = 2.0
"""How many times the difference may be that of one more rounding in each layer: many layers of random weights enlarge it to 0.05
and more in bfloat16."""

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Whether a query sees a key, by an index of the batch, a head, the query's position and the key's."""


def attends_by_span(causal_lm: Any, name: str) -> bool:
    """Give the model attention by spans where that computes what its own masks say, or leave it with its masks.

    causal_lm: loaded, on the CPU. name: of the model, for the message that says why it keeps its masks.
    """
    asked = _Asked()
    try:
        _compare(causal_lm, asked)
    except NotBySpan as refusal:
        log.warning(
            "%s: a row of packed sequences costs the square of its length in attention, where other models cost the sum of the "
            "squares of its sequences: it %s. Smaller learner.row_tokens cost less",
            name,
            refusal,
        )
        # Rows come in ever new widths, and for each of them cuDNN first makes a plan, 0.3 s on an H200.
        torch.backends.cuda.enable_cudnn_sdp(False)
        # transformers' sdpa ignores soft caps.
        causal_lm.set_attn_implementation("eager" if asked.has_softcap else "sdpa")
        return False
    return True


class _Asked:
    """What a model says in the forward in which it is asked."""

    def __init__(self) -> None:
        self.rules: list[tuple[Tensor, Rule]] = []
        """Each mask that it has built, and the rule of that mask."""
        self.layers = 0
        """Attentions that it has computed."""
        self.has_softcap = False
        self.rounds_again = False
        """Whether each attention's output is off by one rounding."""

    def mask(self, *, q_length: int, kv_length: int, mask_function: Rule, device: torch.device, **_: Any) -> Tensor:
        """A mask of these few tokens, whose rule is kept."""
        queries, keys = torch.arange(q_length, device=device), torch.arange(kv_length, device=device)
        mask = _seen(mask_function, queries[:, None], keys[None])[None, None]
        self.rules.append((mask, mask_function))
        return mask

    def attention(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **keywords: Any,
    ) -> tuple[Tensor, None]:
        """Attention under the model's own mask, compared with attention by spans."""
        self.layers += 1
        softcap = keywords.get("softcap")
        self.has_softcap |= softcap is not None
        rule = next((rule for mask, rule in self.rules if attention_mask is mask), None)
        if rule is None or attention_mask is None:
            raise NotBySpan("gives its attention a mask that it made itself")
        _check_rule(rule, keywords.get("sliding_window"))
        by_span, _ = attend(module, query, key, value, None, **keywords)
        # In float32: scores rounded to bfloat16 would be further from the truth than either kernel.
        q, k, v = (states[0].transpose(0, 1).float() for states in (query, key, value))
        scale = keywords.get("scaling") or query.shape[-1] ** -0.5
        own = weigh(q, k, v, attention_mask[0, 0], scale, softcap)[None].to(query.dtype)
        if not (by_span - own).abs().max() <= CLOSE[query.dtype] * own.abs().max():
            raise NotBySpan("says something else under it, layer by layer")
        if self.rounds_again:
            up = torch.arange(own.numel(), device=own.device).view_as(own) % 2
            own = own * (1 + torch.finfo(own.dtype).eps * (2 * up - 1).to(own.dtype))
        return own, None


def _give(causal_lm: Any, implementation: str) -> None:
    causal_lm.set_attn_implementation(implementation)
    if causal_lm.config._attn_implementation != implementation:
        raise NotBySpan("has attention code that transformers cannot exchange")


@torch.no_grad()
def _compare(causal_lm: Any, asked: _Asked) -> None:
    """Leave the model with attention by spans. Raises NotBySpan where it may not have it."""
    AttentionInterface.register(ASKED, asked.attention)
    AttentionMaskInterface.register(ASKED, asked.mask)
    ids = torch.arange(1, TOKENS + 1)[None] % causal_lm.get_input_embeddings().num_embeddings
    layout = SpanLayout(rows_alone(1, TOKENS), ids.device)

    def last_hidden() -> Tensor:
        try:
            hidden: Tensor = causal_lm.base_model(
                input_ids=ids, position_ids=torch.arange(TOKENS)[None], use_cache=False, **{KEYWORD: layout}
            ).last_hidden_state[0]
        except NotBySpan:
            raise
        except Exception as failed:  # whatever the code of a model that nobody has seen here does
            raise NotBySpan(f"fails under it ({type(failed).__name__}: {failed})") from failed
        return hidden.float()

    _give(causal_lm, ASKED)
    own = last_hidden()
    if not asked.layers:
        raise NotBySpan("has no attention layer that transformers could exchange")

    def gap() -> float:
        return float(((last_hidden() - own).norm(dim=-1) / own.norm(dim=-1)).median())

    asked.rounds_again = True
    rounding = gap()
    _give(causal_lm, NAME)
    if not gap() <= max(CLOSE_HIDDEN, ROUNDINGS * rounding):
        raise NotBySpan("says something else under it")


def _seen(rule: Rule, queries: Tensor, keys: Tensor) -> Tensor:
    zero = torch.zeros((), dtype=torch.int64, device=queries.device)
    return rule(zero, zero, queries, keys).expand(torch.broadcast_shapes(queries.shape, keys.shape))


def _check_rule(rule: Rule, window: int | None) -> None:
    """Raises NotBySpan for a mask that is not causal, or that has another window than the keywords say."""
    edges = set() if window is None else {q - window + step for q in FAR for step in (-1, 0, 1) if q >= window}
    pairs = torch.tensor(list(itertools.product(FAR, sorted({*FAR, *edges}))))
    queries, keys = pairs.unbind(1)
    expected = keys <= queries if window is None else (keys <= queries) & (keys > queries - window)
    try:
        seen = _seen(rule, queries, keys)
    except Exception as failed:  # a rule that knows these few tokens only
        raise NotBySpan("has a mask that is made for one batch") from failed
    if not torch.equal(seen, expected):
        raise NotBySpan("has masks that the keywords of its attention layers do not tell")
