"""Which share of the weights, in the dtype of the wire, a learner's step changes: what sending only those would save.

    python -m benchmarks.changed_values [--steps 24] [--seeds 3] [--out .bench/changed_values.json]

A random Qwen2 of 4 layers and 256 hidden, weights drawn as its family's are (standard deviation 0.02), float32 masters and AdamW
(0.9, 0.999, no decay). Each step is a policy gradient on 16 responses of 32 tokens that the model samples itself, with advantages
of 1 and -1 in halves of a group, the gradient's norm limited to 1. Counted at each step: values whose bfloat16 differs from the
step before. Then the share of it at the first step and the mean of the last half, and the bytes of a delta (4 of the place and 2
of the value) over those of all weights. Not a trained model: what counts is the size of a weight to that of a step.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import machine

RATES = (1e-6, 1e-5)
GROUP, PROMPT, RESPONSE = 16, 8, 32
DELTA_BYTES, VALUE_BYTES = 6, 2
"""Bytes on the wire: a changed bfloat16 value with its place, and a value alone."""


def model_of(seed: int) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, tie_word_embeddings=True, dtype="float32"))


def shares(seed: int, rate: float, steps: int) -> list[float]:
    """The share of values that each step changes in bfloat16."""
    model = model_of(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    advantages = torch.ones(GROUP)
    advantages[GROUP // 2 :] = -1.0
    found: list[float] = []
    total = sum(parameter.numel() for parameter in model.parameters())
    for _ in range(steps):
        prompt = torch.randint(0, 2048, (1, PROMPT)).expand(GROUP, PROMPT)
        with torch.no_grad():
            tokens = model.generate(
                prompt, max_new_tokens=RESPONSE, min_new_tokens=RESPONSE, do_sample=True, top_k=0, pad_token_id=0
            )
        logits = model(tokens[:, :-1]).logits[:, PROMPT - 1 :]
        logp = torch.log_softmax(logits, -1).gather(-1, tokens[:, PROMPT:, None])[..., 0]
        optimizer.zero_grad()
        (-(advantages[:, None] * logp).mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        before = [parameter.detach().to(torch.bfloat16) for parameter in model.parameters()]
        optimizer.step()
        pairs = zip(before, model.parameters(), strict=True)
        changed = sum(int((old != new.detach().to(torch.bfloat16)).sum()) for old, new in pairs)
        found.append(changed / total)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(".bench/changed_values.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for rate in RATES:
        runs = [shares(seed, rate, asked.steps) for seed in range(asked.seeds)]
        later = [statistics.mean(run[asked.steps // 2 :]) for run in runs]
        row = {"rate": rate, "first": [run[0] for run in runs], "later": later}
        rows.append(row | {"delta_over_all": statistics.mean(later) * DELTA_BYTES / VALUE_BYTES})
        print(json.dumps(rows[-1]), flush=True)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({"machine": machine(["torch"]), "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
