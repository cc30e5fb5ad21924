"""Builds the example of two sources: two-digit addition and two-digit subtraction, the digits of the result in reverse, and a
small model that does both, sloppily: about half of its sampled sums are right, and 0.43 of its differences.

    python examples/two_sources/make_example.py [--out FOLDER] [--seed N]

Writes data/additions.jsonl, data/subtractions.jsonl, a held-out file of each (disjoint) and model/ (Qwen2, character tokenizer,
safetensors) next to this file or under --out. Deterministic by seed; does nothing when the outputs exist and were made by this
recipe. The model of this recipe comes with the project, so the first run only writes the data; to train the model again, delete
model/ and wait two or three minutes (one thread).

As in examples/addition, the model learns from right solutions first, and then from solutions with slips in them: rewards have
to teach it not to be sloppy.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402

CHARACTERS = "0123456789+-="
PROMPT_TOKENS, RESPONSE_TOKENS = 6, 4  # "72-45=", and up to three digits with the end-of-sequence token
SIGNS = {"additions": "+", "subtractions": "-"}


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    heldout: int = 250
    """Held-out problems of each source."""
    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 384
    batch: int = 192
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    clean_until: float = 0.85
    """The model learns from right solutions until its sampled accuracy on training problems of both sources is this."""
    slip: dict[str, float] = field(default_factory=lambda: {"additions": 0.2, "subtractions": 0.4})
    """Source -> share of digits that are random ones from then on."""
    slip_steps: int = 120
    max_steps: int = 3000


Pair = tuple[int, int]


def problems(recipe: Recipe, source: str) -> tuple[list[Pair], list[Pair]]:
    """All pairs of a source: those for training, and those held out. The split is the same for every seed."""
    pairs = ((a, b) for a in range(10, 100) for b in range(10, 100) if source == "additions" or a >= b)
    split: tuple[list[Pair], list[Pair]] = bundled.split(pairs, recipe.heldout, f"20260 {source}")
    return split


def question(source: str, pair: Pair) -> str:
    return f"{pair[0]}{SIGNS[source]}{pair[1]}="


def answer(source: str, pair: Pair) -> str:
    return str(sum(pair) if source == "additions" else pair[0] - pair[1])[::-1]


def row(source: str, pair: Pair) -> dict[str, str]:
    return {"prompt": question(source, pair), "reference": answer(source, pair)}


def rows(recipe: Recipe) -> dict[str, list[dict[str, str]]]:
    files = {}
    for source in SIGNS:
        training, heldout = problems(recipe, source)
        files[source] = [row(source, pair) for pair in training]
        files[f"heldout-{source}"] = [row(source, pair) for pair in heldout]
    return files


def encoded(source: str, pairs: list[Pair]) -> list[list[int]]:
    """Prompt, answer and end of sequence as token numbers, padded to one length."""
    texts = ((question(source, pair), answer(source, pair)) for pair in pairs)
    found: list[list[int]] = bundled.encoded(CHARACTERS, texts, PROMPT_TOKENS + RESPONSE_TOKENS)
    return found


def make_model(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The starting model, and what was measured of it: it learns to compute, then to slip."""
    import torch

    model = bundled.new_model(recipe, 16)
    draw = torch.Generator().manual_seed(recipe.seed)
    split = {source: problems(recipe, source) for source in SIGNS}
    training = [torch.tensor(encoded(source, split[source][0])) for source in SIGNS]
    shares = [torch.full((len(own), 1), recipe.slip[source]) for source, own in zip(SIGNS, training, strict=True)]
    pool, share = torch.cat(training), torch.cat(shares)

    batch = bundled.slipping(pool, share, recipe.batch, prompt_tokens=PROMPT_TOKENS, draw=draw)

    def accuracy(asked: Any) -> float:
        right: float = bundled.sampled_accuracy(model, asked, prompt_tokens=PROMPT_TOKENS, draw=draw)
        return right

    steps = bundled.supervise(
        model, recipe, batch, lambda: min(accuracy(own[:512]) for own in training) >= recipe.clean_until
    )
    facts: dict[str, Any] = {"supervised_steps": steps}
    for source in SIGNS:
        unseen = torch.tensor(encoded(source, split[source][1])).repeat(4, 1)
        facts[f"heldout_{source}"] = accuracy(unseen)
    return model, facts


EXAMPLE = bundled.Example(
    make_model,
    lambda: bundled.make_tokenizer(CHARACTERS),
    takes="two or three minutes",
    learned="{heldout_additions:.2f} of sampled held-out sums right and {heldout_subtractions:.2f} of the differences",
    rows=rows,
)


if __name__ == "__main__":
    EXAMPLE.main(Recipe, __doc__, HERE)
