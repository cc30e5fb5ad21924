"""Builds the model of the example with reasoning-gym: a small one that can spell backward, and is careless.

    python examples/spelling/make_example.py [--out FOLDER] [--seed N]

    Spell this word backward (example: sun -> nus): stove     the prompt, as the package's task spell_backward makes it
    evots

Writes model/ (Llama, a tokenizer of the instruction and of letters, safetensors) next to this file or under --out; there is no
data: the run asks the package for it (pip install "ratchet[reasoning-gym]"). Deterministic by seed; does nothing when the model
exists and was made by this recipe. It comes with the project; to train it again, delete model/ and wait some minutes (one
thread).

The model learns from random letters, right solutions first, and then such with slips in them. It has never seen a word: all that
it knows of words it learns from the package's scores, which give a part of the reward to a part of the letters.
"""

import random
import string
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402
from bundled import EOS, FIRST  # noqa: E402

INSTRUCTION = "Spell this word backward (example: sun -> nus): "
LETTERS = string.ascii_lowercase + string.ascii_uppercase
TOKENS = [INSTRUCTION, *LETTERS]
PIECES = r"Spell this word backward \(example: sun -> nus\): |."
SHORTEST, LONGEST = 3, 6  # letters


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    layers: int = 2
    width: int = 64
    heads: int = 2
    kv_heads: int = 1
    feed_forward: int = 192
    batch: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    clean_until: float = 0.65
    """The model learns from right solutions until this share of those that it samples is right."""
    slip: float = 0.15
    """Share of letters that are random ones from then on."""
    slip_steps: int = 150
    max_steps: int = 4000


def word(draw: random.Random) -> str:
    """Random letters; all but the first are small ones."""
    first = draw.choice(LETTERS)
    return first + "".join(draw.choices(string.ascii_lowercase, k=draw.randint(SHORTEST, LONGEST) - 1))


def encoded(asked: str, answer: str) -> list[tuple[int, bool]]:
    """The tokens of a problem and of an answer, and which of them are to be learned: the answer."""
    prompt, own = bundled.numbered(TOKENS, [INSTRUCTION, *asked]), [*bundled.numbered(TOKENS, answer), EOS]
    return [*((token, False) for token in prompt), *((token, True) for token in own)]


def make_tokenizer() -> Any:
    return bundled.make_tokenizer(TOKENS, PIECES)


def make_model(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The starting model, and what was measured of it."""
    import torch

    draw, seeded = random.Random(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    model = bundled.new_model(recipe, FIRST + len(TOKENS) + 1, kind="llama")

    def answer(asked: str, slips: bool) -> str:
        right = asked[::-1]
        if not slips:
            return right
        return "".join(draw.choice(string.ascii_lowercase) if draw.random() < recipe.slip else c for c in right)

    def batch(slips: bool) -> Any:
        chosen = [word(draw) for _ in range(recipe.batch)]
        return bundled.padded([encoded(asked, answer(asked, slips)) for asked in chosen])

    def right_share(count: int) -> float:
        """Share of answers to new words that are right, sampled at temperature 1; as many words of each length."""
        found = []
        for length in range(SHORTEST, LONGEST + 1):
            asked = ["".join(draw.choices(string.ascii_lowercase, k=length)) for _ in range(count)]
            rows = torch.tensor([[token for token, _ in encoded(one, one[::-1])] for one in asked])
            found.append(bundled.sampled_accuracy(model, rows, prompt_tokens=1 + length, draw=seeded))
        share: float = sum(found) / len(found)
        return share

    steps = bundled.supervise(model, recipe, batch, lambda: right_share(50) >= recipe.clean_until, look_every=100)
    return model, {"supervised_steps": steps, "right": right_share(500)}


EXAMPLE = bundled.Example(
    make_model, make_tokenizer, takes="some minutes", learned="{right:.2f} of sampled answers right"
)


if __name__ == "__main__":
    EXAMPLE.main(Recipe, __doc__, HERE)
