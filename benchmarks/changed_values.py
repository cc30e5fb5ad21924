"""Which share of the weights, in the dtype of the wire, a learner's step changes, and the bytes of a sync by what changed.

    python -m benchmarks.changed_values [--models addition random] [--rates 1e-6 1e-5 1e-4] [--steps 24] [--seeds 3]

addition: the model of examples/addition, which has learned to add and gets two sums in five right; each step is a policy
gradient on 32 groups of 8 sums that it samples itself, with the right ones rewarded. random: a Qwen2 of 0.1 B, weights drawn as
its family's are (standard deviation 0.02); 16 responses of 32 tokens, advantages of 1 and -1 in halves of the group. Float32
masters, AdamW (0.9, 0.999, no decay), the gradient's norm limited to 1, the rate reached over the first four steps.

Counted in the second half of the steps: bfloat16 values that differ from the step before, and from four steps before, which is
what a sync carries that takes as long as four steps. Bytes are those of services/weights/delta.py, in buckets of 64 MiB, over
whole ones.
"""

import argparse
import json
import statistics
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import machine
from services.weights.buckets import pack
from services.weights.delta import encode, unit_bytes

RATES = (1e-6, 1e-5, 1e-4)
APART = (1, 4)
"""Steps between the two versions that are compared."""
WARMUP = 4
BUCKET_MIB = 64
ADDITION = Path(__file__).parents[1] / "examples/addition/model"
CHARACTERS = "0123456789+="
PADDING, END, FIRST_CHARACTER = 0, 1, 2
"""Token ids of that model."""
GROUPS, GROUP_SIZE, DIGITS = 32, 8, 4
RESPONSES, PROMPT, RESPONSE = 16, 8, 32
Loss = Callable[[Any], Tensor]
"""Samples from a model and returns the loss of what it sampled."""


def addition(seed: int) -> tuple[Any, Loss]:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)

    def loss(model: Any) -> Tensor:
        pairs = torch.randint(10, 100, (GROUPS, 2)).repeat_interleave(GROUP_SIZE, 0).tolist()
        prompts = torch.tensor([[CHARACTERS.index(c) + FIRST_CHARACTER for c in f"{a}+{b}="] for a, b in pairs])
        tokens, logp, counts = _sampled(model, prompts, DIGITS)
        right = [float(_text(row) == str(a + b)[::-1]) for row, (a, b) in zip(tokens.tolist(), pairs, strict=True)]
        rewards = torch.tensor(right).view(GROUPS, GROUP_SIZE)
        advantages = (rewards - rewards.mean(1, keepdim=True)).view(-1, 1)
        return -(advantages * logp * counts).sum() / counts.sum()

    return AutoModelForCausalLM.from_pretrained(ADDITION, dtype="float32"), loss


def random_weights(seed: int) -> tuple[Any, Loss]:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": 32_000,
        "hidden_size": 768,
        "intermediate_size": 2688,
        "num_hidden_layers": 10,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "max_position_embeddings": 64,
    }
    advantages = torch.ones(RESPONSES, 1)
    advantages[RESPONSES // 2 :] = -1.0

    def loss(model: Any) -> Tensor:
        prompts = torch.randint(FIRST_CHARACTER, sizes["vocab_size"], (1, PROMPT)).expand(RESPONSES, PROMPT)
        _, logp, counts = _sampled(model, prompts, RESPONSE)
        return -(advantages * logp * counts).sum() / counts.sum()

    return Qwen2ForCausalLM(Qwen2Config(**sizes, tie_word_embeddings=True, dtype="float32")), loss


MODELS = {"addition": addition, "random": random_weights}


def _sampled(model: Any, prompts: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Responses [N, L], their log-probs [N, L] with a gradient, and which of their tokens count [N, L]."""
    with torch.no_grad():
        tokens = model.generate(
            prompts, max_new_tokens=most, do_sample=True, top_k=0, eos_token_id=END, pad_token_id=PADDING
        )
    length = prompts.shape[1]
    responses = tokens[:, length:]
    logits = model(tokens[:, :-1]).logits[:, length - 1 :]
    logp = torch.log_softmax(logits, -1).gather(-1, responses[..., None])[..., 0]
    ends = (responses == END).long()
    return responses, logp, (ends.cumsum(1) - ends == 0).float()


def _text(tokens: list[int]) -> str:
    known = [token for token in tokens if token >= FIRST_CHARACTER]
    return "".join(CHARACTERS[token - FIRST_CHARACTER] for token in known if token - FIRST_CHARACTER < len(CHARACTERS))


def measured(name: str, seed: int, rate: float, steps: int) -> dict[int, tuple[float, float]]:
    """For each of APART, in the second half of the steps: share of changed values, and bytes of a sync over whole ones."""
    model, loss = MODELS[name](seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    versions: deque[list[tuple[Any, Tensor]]] = deque(maxlen=max(APART) + 1)
    shares: dict[int, list[float]] = {apart: [] for apart in APART}
    ratios: dict[int, list[float]] = {apart: [] for apart in APART}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARMUP)
        optimizer.zero_grad()
        loss(model).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        wire = [(each, parameter.detach().to(torch.bfloat16)) for each, parameter in model.named_parameters()]
        versions.append(pack(wire, BUCKET_MIB))
        for apart in APART:
            if step >= max(steps // 2, apart):
                share, ratio = between(versions[-1 - apart], versions[-1])
                shares[apart].append(share)
                ratios[apart].append(ratio)
    return {apart: (statistics.mean(shares[apart]), statistics.mean(ratios[apart])) for apart in APART}


def between(base: list[tuple[Any, Tensor]], now: list[tuple[Any, Tensor]]) -> tuple[float, float]:
    """The share of values that differ, and the bytes of a sync over those of whole buckets."""
    changed = values = sent = size = 0
    for (_, old), (bucket, new) in zip(base, now, strict=True):
        unit = unit_bytes(bucket)
        changed += int((old.view(torch.int16) != new.view(torch.int16)).sum())
        values += new.numel() // 2
        encoded = encode(old, new, unit)
        sent += new.numel() if encoded is None else encoded.numel()
        size += new.numel()
    return changed / values, sent / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(".bench/changed_values.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in asked.models:
        for rate in asked.rates:
            runs = [measured(name, seed, rate, asked.steps) for seed in range(asked.seeds)]
            for apart in APART:
                shares, ratios = zip(*(run[apart] for run in runs), strict=True)
                rows.append({"model": name, "rate": rate, "steps_apart": apart, "shares": shares, "bytes": ratios})
                print(
                    f"| {name} | {rate:.0e} | {apart} | {statistics.mean(shares):.2%} ({min(shares):.2%} to {max(shares):.2%}) | "
                    f"{statistics.mean(ratios):.3f} |",
                    flush=True,
                )
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({"machine": machine(["torch"]), "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
