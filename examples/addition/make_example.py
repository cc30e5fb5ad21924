"""Builds the bundled example: two-digit addition with the digits of the sum in reverse, and a small model that gets
about two in five sampled sums right, which is where reinforcement learning takes over.

    python examples/addition/make_example.py [--out FOLDER] [--seed N] [--untied]

Writes data/train.jsonl, data/heldout.jsonl (disjoint) and model/ (Qwen2, character tokenizer, safetensors) next to this
file or under --out. Deterministic by seed; does nothing when the outputs exist and were made by this recipe. The model of
this recipe comes with the project, so the first run only writes the data; to train the model again, delete model/ and wait
a minute or two (one thread).

The model first learns from right solutions, then from solutions with slips in them, like a model that was pretrained on
the work of people who make mistakes: it can add, and is as sloppy as its data. Rewards alone have to teach it not to be.
(A model of the same accuracy that has only half learned to add gains from rewards several times more slowly.)
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402

CHARACTERS = "0123456789+="
PROMPT_TOKENS, RESPONSE_TOKENS = 6, 4  # "27+45=", and up to three digits with the end-of-sequence token


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    tied: bool = True
    heldout: int = 500
    layers: int = 4
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 384
    batch: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    clean_until: float = 0.85
    """The model learns from right solutions until its sampled accuracy on training problems, at temperature 1, is this."""
    slip: float = 0.28
    """Share of digits in the solutions that are random ones from then on: data with mistakes in it."""
    slip_steps: int = 120
    max_steps: int = 2000


def problems(recipe: Recipe) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """All sums of two two-digit numbers: those for training, and those held out."""
    split: tuple[list[tuple[int, int]], list[tuple[int, int]]] = bundled.split(
        ((a, b) for a in range(10, 100) for b in range(10, 100)), recipe.heldout, 20260
    )
    return split


def question(pair: tuple[int, int]) -> str:
    return f"{pair[0]}+{pair[1]}="


def answer(pair: tuple[int, int]) -> str:
    return str(sum(pair))[::-1]


def rows(recipe: Recipe) -> dict[str, Iterator[dict[str, str]]]:
    training, heldout = problems(recipe)
    return {"train": map(row, training), "heldout": map(row, heldout)}


def row(pair: tuple[int, int]) -> dict[str, str]:
    return {"prompt": question(pair), "reference": answer(pair), "grader": "exact"}


def make_tokenizer() -> Any:
    return bundled.make_tokenizer(CHARACTERS)


def encoded(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Prompt, answer and end of sequence as token numbers, padded to one length."""
    texts = ((question(pair), answer(pair)) for pair in pairs)
    found: list[list[int]] = bundled.encoded(CHARACTERS, texts, PROMPT_TOKENS + RESPONSE_TOKENS)
    return found


def make_model(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The starting model, and what was measured of it: it learns to add, then to slip."""
    import torch

    model = bundled.new_model(recipe, 16, tied=recipe.tied)
    draw = torch.Generator().manual_seed(recipe.seed)
    training, heldout = problems(recipe)
    pool = torch.tensor(encoded(training))
    batch = bundled.slipping(
        pool, torch.full((len(pool), 1), recipe.slip), recipe.batch, prompt_tokens=PROMPT_TOKENS, draw=draw
    )

    def accuracy(asked: Any) -> float:
        right: float = bundled.sampled_accuracy(model, asked, prompt_tokens=PROMPT_TOKENS, draw=draw)
        return right

    steps = bundled.supervise(model, recipe, batch, lambda: accuracy(pool[:1024]) >= recipe.clean_until)
    unseen = torch.tensor(encoded(heldout)).repeat(4, 1)
    return model, {"supervised_steps": steps, "heldout_accuracy": accuracy(unseen)}


EXAMPLE = bundled.Example(
    make_model,
    make_tokenizer,
    takes="a minute or two",
    learned="{heldout_accuracy:.2f} of sampled held-out sums right",
    rows=rows,
)


def main() -> None:
    parser = bundled.parser(__doc__, HERE)
    parser.add_argument("--untied", action="store_true", help="separate input and output embeddings")
    arguments = parser.parse_args()
    EXAMPLE.make(Recipe(seed=arguments.seed, tied=not arguments.untied), arguments.out)


if __name__ == "__main__":
    main()
