"""Trains the starting model of an example by supervision: first on right responses, then on responses with slips.

The caller says what the responses are. Deterministic by seed, on one thread.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import bundled
from bundled import EOS, PAD


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


def train(
    recipe: Recipe, lessons: Sequence[Lesson], unseen: Sequence[Lesson], vocabulary: int, length: int
) -> tuple[Any, dict[str, Any]]:
    """Train a model, and return it with what was measured. Raises SystemExit if it does not learn within max_steps.

    vocabulary: token numbers in use. length: longest response, in tokens.
    """
    import torch

    draw = random.Random(recipe.seed)
    model = bundled.new_model(recipe, vocabulary, kind="llama")

    def batch(slips: bool) -> Any:
        rows = []
        for lesson in draw.choices(lessons, k=recipe.batch):
            slip = slips and draw.random() < recipe.slip
            response = [*(lesson.slipped(draw) if slip else draw.choice(lesson.right)), EOS]
            rows.append([*((token, False) for token in lesson.prompt), *((token, True) for token in response)])
        return bundled.padded(rows)

    def taught_share(asked: Sequence[Lesson]) -> float:
        """Share of responses, sampled at temperature 1, that are among those taught: a lower bound on the share that a grader
        would call correct, without running code."""
        longest = max(len(lesson.prompt) for lesson in asked)
        prompts = torch.tensor([[PAD] * (longest - len(lesson.prompt)) + lesson.prompt for lesson in asked])
        sampling: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "max_new_tokens": length}
        sampled = model.generate(prompts, attention_mask=(prompts != PAD).long(), **sampling)[:, longest:].tolist()
        taught = (
            EOS in row and row[: row.index(EOS)] in lesson.right for row, lesson in zip(sampled, asked, strict=True)
        )
        return sum(taught) / len(asked)

    steps = bundled.supervise(
        model, recipe, batch, lambda: taught_share(lessons[:256]) >= recipe.clean_until, look_every=50
    )
    return model, {"supervised_steps": steps, "heldout_written_as_taught": taught_share([*unseen] * 4)}
