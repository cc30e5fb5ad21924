"""Samples in one process, without vLLM: any weights, any moment, so that staleness is exact and not what happened to be."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM


@dataclass(frozen=True, slots=True)
class Sampled:
    token_ids: Tensor
    """int64 [N, L]; after `lengths` whatever was drawn."""
    logp: Tensor
    """float32 [N, L], of each token under the weights that drew it, at temperature 1."""
    lengths: Tensor
    """int64 [N], the end token included where there is one."""
    ended: Tensor
    """bool [N]."""


class Sampler:
    """A copy of the policy of its own; `load` brings it up to date."""

    def __init__(self, model: Path, end: int) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa")
        self._model.eval()
        self._end = end

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        own = dict(self._model.named_parameters())
        for name, tensor in weights:
            own.pop(name).copy_(tensor)
        if own:
            raise ValueError(f"no weights for {sorted(own)}")

    @torch.no_grad()
    def sample(self, prompts: Tensor, max_tokens: int, random: torch.Generator) -> Sampled:
        """One response a row. prompts: int64 [N, P]."""
        given, cache = prompts, None
        going = torch.ones(len(prompts), dtype=torch.bool)
        lengths = torch.zeros(len(prompts), dtype=torch.int64)
        tokens, logps = [], []
        for _ in range(max_tokens):
            out = self._model(given, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            log_p = out.logits[:, -1].float().log_softmax(-1)
            given = torch.multinomial(log_p.exp(), 1, generator=random)
            tokens.append(given)
            logps.append(log_p.gather(1, given))
            lengths += going
            going &= given[:, 0] != self._end
            if not going.any():
                break
        return Sampled(torch.cat(tokens, 1), torch.cat(logps, 1), lengths, ~going)
