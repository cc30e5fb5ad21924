"""The larger case of the comparison: a random model of 31 M parameters that writes up to 64 tokens.

Half of the answers hold one of the words that are rewarded, so most groups teach something from the first step on, on both
sides. It says nothing about learning: it is there for its time.
"""

import json
import random
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from examples.bundled import EOS, PAD, make_tokenizer

WORDS = tuple(f"w{number}" for number in range(509))
"""With padding, end and unknown they make a vocabulary of 512, of which one ends an answer: one in nine ends early."""
PROMPT_WORDS = 16
PROMPTS = 4096
REWARDED = "w(7|77|177|277|377)(?!\\d)"
"""A regular expression: one of five words of the 512 is among 64 in about half of the answers."""


def make(folder: Path) -> None:
    """Write model/ and data/train.jsonl; does nothing where they are."""
    data = folder / "data" / "train.jsonl"
    if data.is_file():
        return
    # Not Qwen2: transformers puts its own byte-level splitting in place of a tokenizer of words.
    config = LlamaConfig(
        vocab_size=len(WORDS) + 3,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=10,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    make_tokenizer(WORDS, r"w\d+|.").save_pretrained(folder / "model")
    draw = random.Random(0)
    rows = [{"prompt": "".join(draw.choices(WORDS, k=PROMPT_WORDS)), "reference": REWARDED} for _ in range(PROMPTS)]
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
