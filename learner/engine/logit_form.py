"""What a model does between its last hidden state and its logits, besides multiplying by lm_head."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from services.errors import InputError

MULTIPLIERS = ("logit_scale", "lm_head_multiplier", "logits_scaling")
"""Keys of a config.json with a number that logits are multiplied by (Cohere, Falcon-H1, HyperCLOVA X)."""
DIVISORS = ("logits_scaling",)
"""Keys with a number that they are divided by (Granite, MiniCPM3)."""


@dataclass(frozen=True, slots=True)
class LogitForm:
    """scale x product, bounded to softcap x tanh(. / softcap) where there is a softcap (Gemma 2, arXiv:2408.00118)."""

    scale: float = 1.0
    softcap: float | None = None

    def of(self, product: Tensor) -> Tensor:
        """The logits of a product of hidden state and lm_head, of any shape."""
        scaled = product * self.scale
        return scaled if self.softcap is None else (scaled / self.softcap).tanh() * self.softcap


VISIBLE = 2.0
"""In softcaps: logits this large show whether a model bounds them."""


@torch.no_grad()
def form_of(setting: str, path: str, causal_lm: Any, head: nn.Linear) -> LogitForm:
    """The form that the config suggests and with which the model's own logits come out.

    Raises InputError where none does: learner and model would compute different log-probs.
    """
    suggested = list(_suggested(causal_lm.config.get_text_config()))
    logits, product = _example(causal_lm, head)
    softcap = suggested[0].softcap
    if softcap is not None:
        # Far below the softcap it changes nothing. A power of two changes no other bit.
        factor = 2.0 ** math.ceil(math.log2(max(1.0, VISIBLE * softcap / float(logits.abs().max()))))
        head.weight.data.mul_(factor)
        logits, product = _example(causal_lm, head)
        head.weight.data.div_(factor)
    for form in suggested:
        if torch.allclose(form.of(product), logits, rtol=1e-2, atol=1e-2 * float(logits.abs().max())):
            return form
    raise InputError(
        f"{setting} = {path}: {type(causal_lm).__name__} computes its logits by more than its last hidden state times "
        "lm_head, scaled and bounded as its config.json says, which is what the learner's head computes; take another model"
    )


def _example(causal_lm: Any, head: nn.Linear) -> tuple[Tensor, Tensor]:
    """(logits, last hidden state times head) for four tokens. float32 [1, 4, V]."""
    ids = torch.arange(4)[None] % len(head.weight)
    logits = causal_lm(input_ids=ids, use_cache=False).logits.float()
    return logits, head(causal_lm.base_model(input_ids=ids, use_cache=False).last_hidden_state).float()


def _suggested(config: Any) -> Iterator[LogitForm]:
    """Every reading of the config. Families use the same key, one to multiply and others to divide."""
    softcap = getattr(config, "final_logit_softcapping", None)
    scales = [float(scale) for key in MULTIPLIERS if (scale := getattr(config, key, None))]
    scales += [1 / float(scale) for key in DIVISORS if (scale := getattr(config, key, None))]
    for bound in dict.fromkeys((softcap, None)):
        yield from (LogitForm(scale, bound) for scale in dict.fromkeys((*scales, 1.0)))
