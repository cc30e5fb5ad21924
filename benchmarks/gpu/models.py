"""Versions of what runs, and random models in the shapes of real ones."""

import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.gpu.card import Card, case, row

SHAPES: dict[str, dict[str, Any]] = {  # Qwen2.5 and Qwen3 of that size; the last is for a machine without a GPU
    "0.5B": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "1.5B": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
    "0.6B": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "1.7B": {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "4B": {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


def vocabulary(card: Card) -> int:
    return 97 if card.cpu else 151_936


def model_path(card: Card, name: str) -> str:
    return str(card.models / ("tiny" if card.cpu else name))


def versions(card: Card, _: str) -> None:
    """Python, torch, transformers, NCCL, the card and its driver, and its measured matrix products."""
    import transformers

    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.free", "--format=csv,noheader"]
    name = "none" if card.cpu else subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    nccl = "none" if card.cpu else ".".join(map(str, torch.cuda.nccl.version()))
    row(
        "versions",
        python=sys.version.split()[0],
        torch=torch.__version__,
        transformers=transformers.__version__,
        nccl=nccl,
        card=name,
    )
    row("matmul bf16", tflops=card.matmul_flops() / 1e12)


def models(card: Card, names: str) -> None:
    """Write models of random weights, large enough that distributions are not flat."""
    from transformers import AutoModelForCausalLM, PreTrainedConfig, Qwen2Config, Qwen3Config

    for name in ("tiny",) if card.cpu else names.split(","):
        with case(name):
            if (card.models / name / "config.json").exists():
                continue
            torch.manual_seed(0)
            family = Qwen3Config if "head_dim" in SHAPES[name] else Qwen2Config
            config: PreTrainedConfig = family(
                vocab_size=vocabulary(card),
                max_position_embeddings=32768,
                tie_word_embeddings=True,
                initializer_range=0.04,
                **SHAPES[name],
            )
            began_s = time.monotonic()
            with card.device:
                model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            part = card.models / f"{name}.part"
            model.save_pretrained(part)
            part.rename(card.models / name)
            row(name, parameters=sum(p.numel() for p in model.parameters()), seconds=time.monotonic() - began_s)
