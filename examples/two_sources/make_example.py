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

import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402
from bundled import EOS, FIRST, PAD  # noqa: E402

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
    slip: dict[str, float] | None = None
    """Source -> share of digits that are random ones from then on; None: 0.2 of additions and 0.4 of subtractions."""
    slip_steps: int = 120
    max_steps: int = 3000

    @property
    def slips(self) -> dict[str, float]:
        return self.slip or {"additions": 0.2, "subtractions": 0.4}


Pair = tuple[int, int]


def problems(recipe: Recipe, source: str) -> tuple[list[Pair], list[Pair]]:
    """All pairs of a source: those for training, and those held out. The split is the same for every seed."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100) if source == "additions" or a >= b]
    random.Random(f"20260 {source}").shuffle(pairs)
    return pairs[recipe.heldout :], pairs[: recipe.heldout]


def question(source: str, pair: Pair) -> str:
    return f"{pair[0]}{SIGNS[source]}{pair[1]}="


def answer(source: str, pair: Pair) -> str:
    return str(sum(pair) if source == "additions" else pair[0] - pair[1])[::-1]


def rows(source: str, pairs: list[Pair]) -> Iterator[dict[str, str]]:
    for pair in pairs:
        yield {"prompt": question(source, pair), "reference": answer(source, pair)}


def write_data(recipe: Recipe, folder: Path) -> None:
    for source in SIGNS:
        training, heldout = problems(recipe, source)
        bundled.write_rows(folder, {source: rows(source, training), f"heldout-{source}": rows(source, heldout)})


def encoded(source: str, pairs: list[Pair]) -> list[list[int]]:
    """Prompt, answer and end of sequence as token numbers, padded to one length."""
    length, found = PROMPT_TOKENS + RESPONSE_TOKENS, []
    for pair in pairs:
        tokens = [CHARACTERS.index(c) + FIRST for c in question(source, pair) + answer(source, pair)] + [EOS]
        found.append(tokens + [PAD] * (length - len(tokens)))
    return found


def make_model(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The starting model, and what was measured of it: it learns to compute, then to slip."""
    import torch

    model = bundled.new_model(recipe, 16)
    draw = torch.Generator().manual_seed(recipe.seed)
    split = {source: problems(recipe, source) for source in SIGNS}
    training = [torch.tensor(encoded(source, split[source][0])) for source in SIGNS]
    share = [torch.full((len(own), 1), recipe.slips[source]) for source, own in zip(SIGNS, training, strict=True)]
    pool, slip = torch.cat(training), torch.cat(share)

    def batch(slips: bool) -> tuple[Any, Any]:
        chosen = torch.randint(len(pool), (recipe.batch,), generator=draw)
        tokens = pool[chosen]
        if slips:
            tokens = bundled.with_slips(tokens, slip[chosen], prompt_tokens=PROMPT_TOKENS, draw=draw)
        return tokens, bundled.labels_of(tokens, PROMPT_TOKENS)

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


def make(recipe: Recipe, out: Path) -> bool:
    """Make what is missing. Returns False if everything was there already."""
    made: bool = bundled.make(
        out,
        asdict(recipe),
        bundled.digest([asdict(recipe), recipe.slips]),
        write_data=lambda folder: write_data(recipe, folder),
        train=lambda: make_model(recipe),
        tokenizer=lambda: bundled.make_tokenizer(CHARACTERS),
        takes="two or three minutes",
        learned="{heldout_additions:.2f} of sampled held-out sums right and {heldout_subtractions:.2f} of the differences",
        files=[*SIGNS, *(f"heldout-{source}" for source in SIGNS)],
    )
    return made


def main() -> None:
    arguments = bundled.parser(__doc__, HERE).parse_args()
    make(Recipe(seed=arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
