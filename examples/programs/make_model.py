"""Trains the starting model of an example by supervision: first on right responses, then on responses with slips.

The caller says what the responses are. Deterministic by seed, on one thread.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from bundled import EOS, PAD

IGNORED = -100  # label of the tokens that are not learned: prompts and padding


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 320
    batch: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    clean_until: float = 0.9
    """The model learns from right responses until this share of the responses that it samples to training prompts, at
    temperature 1, is among those taught."""
    slip: float = 0.6
    """Share of responses that have one slip, from then on."""
    slip_steps: int = 200
    max_steps: int = 2000


@dataclass(frozen=True, slots=True)
class Lesson:
    """One prompt in token numbers, and the responses to learn from."""

    prompt: list[int]
    right: Sequence[list[int]]
    """The responses that are taught, without the end of sequence."""
    slipped: Callable[[random.Random], list[int]]
    """Draws a response with a slip in it."""


def train(recipe: Recipe, lessons: Sequence[Lesson], unseen: Sequence[Lesson], vocabulary: int, length: int):  # type: ignore[no-untyped-def]
    """Train a model, and return it with what was measured. Raises SystemExit if it does not learn within max_steps.

    vocabulary: token numbers in use. length: longest response, in tokens.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    draw = random.Random(recipe.seed)
    # Not Qwen2 as in the other example: transformers puts Qwen2's own byte-level splitting in place of a saved tokenizer's.
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=recipe.width,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    )

    def batch(slips: bool) -> tuple[torch.Tensor, torch.Tensor]:
        rows, labels = [], []
        for lesson in draw.choices(lessons, k=recipe.batch):
            slip = slips and draw.random() < recipe.slip
            response = [*(lesson.slipped(draw) if slip else draw.choice(lesson.right)), EOS]
            rows.append(torch.tensor(lesson.prompt + response))
            labels.append(torch.tensor([IGNORED] * len(lesson.prompt) + response))
        # Padding comes last and attention is causal, so no mask is needed.
        pad = torch.nn.utils.rnn.pad_sequence
        return pad(rows, batch_first=True, padding_value=PAD), pad(labels, batch_first=True, padding_value=IGNORED)

    def taught_share(asked: Sequence[Lesson]) -> float:
        """Share of responses, sampled at temperature 1, that are among those taught: a lower bound on the share that a grader
        would call correct, without running code."""
        longest = max(len(lesson.prompt) for lesson in asked)
        prompts = torch.tensor([[PAD] * (longest - len(lesson.prompt)) + lesson.prompt for lesson in asked])
        sampling: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "max_new_tokens": length}
        generate = cast(Any, model).generate  # its annotation asks for a protocol that no model class declares
        sampled = generate(prompts, attention_mask=(prompts != PAD).long(), **sampling)[:, longest:].tolist()
        taught = (
            EOS in row and row[: row.index(EOS)] in lesson.right for row, lesson in zip(sampled, asked, strict=True)
        )
        return sum(taught) / len(asked)

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    step, slips_from = 0, None
    while slips_from is None or step < slips_from + recipe.slip_steps:
        step += 1
        left = 1.0 if slips_from is None else 1.0 - (step - slips_from) / recipe.slip_steps
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(1.0, step / recipe.warmup_steps) * max(0.1, left)
        rows, labels = batch(slips=slips_from is not None)
        loss = model(rows, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if slips_from is None and step % 50 == 0 and taught_share(lessons[:256]) >= recipe.clean_until:
            slips_from = step
        if slips_from is None and step >= recipe.max_steps:
            raise SystemExit(f"the starting model did not learn the task in {step} steps: change --seed")
    return model.eval(), {"supervised_steps": step, "heldout_written_as_taught": taught_share([*unseen] * 4)}
