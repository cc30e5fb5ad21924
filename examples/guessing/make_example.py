"""Builds the bundled guessing game: one of seven numbers in at most three guesses, each answered with > (higher) or < (lower),
and a small model that mostly guesses anything.

    python examples/guessing/make_example.py [--out FOLDER] [--seed N]

    12-18-33-40-58-71-90  :40  >  :71  <  :58         the prompt, three guesses and two hints; 58 is the number

Writes data/train.jsonl, data/heldout.jsonl (other lists of numbers) and model/ (Qwen2, character tokenizer with a chat template,
safetensors) next to this file or under --out. Deterministic by seed; does nothing when the outputs exist and were made by this
recipe. The model of this recipe comes with the project, so the first run only writes the data; to train the model again, delete
model/ and wait some minutes (one thread).

The model learns from the games of players who know how, and then from those of players who as often as not write any two digits,
so that it wins one game in six. Rewards at the end of each game have to teach it the rest: to guess what the hints leave, and to
halve it, which wins every game.
"""

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402
from bundled import EOS, FIRST  # noqa: E402

CHARACTERS = "0123456789-?<>:"
NUMBERS, GUESSES = 7, 3
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}:{{ m.content }}<eos>{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}:{% endif %}"
)
"""The texts one behind the other; a colon opens the model's turn, and the end-of-sequence token closes it."""
OWN_TOKENS = 3
"""Two digits and the end."""

Numbers = tuple[int, ...]
Problem = tuple[Numbers, int]
"""The numbers, and the one to find."""


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    training: int = 400
    heldout: int = 40
    """Lists of numbers, in each of which every number is to be found once."""
    layers: int = 3
    width: int = 64
    heads: int = 2
    kv_heads: int = 1
    feed_forward: int = 192
    batch: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    clean_until: float = 0.65
    """The model learns from players without slips until it wins this share of games; they win 0.84."""
    halve: float = 0.6
    """Share of those players' guesses that are the middle of what the hints leave; the others are any number of it."""
    slip: float = 0.55
    """Share of guesses that are any two digits from then on."""
    slip_steps: int = 60
    max_steps: int = 3000


def numbers(draw: random.Random) -> Numbers:
    return tuple(sorted(draw.sample(range(10, 100), NUMBERS)))


def problems(recipe: Recipe) -> tuple[list[Problem], list[Problem]]:
    """The problems for training, and those of the lists held out. They are the same for every seed."""
    draw, lists = random.Random(20261), dict[Numbers, None]()
    while len(lists) < recipe.training + recipe.heldout:
        lists[numbers(draw)] = None
    every = [(one, number) for one in lists for number in one]
    return every[recipe.heldout * NUMBERS :], every[: recipe.heldout * NUMBERS]


def question(problem: Problem) -> str:
    return "-".join(map(str, problem[0]))


def row(problem: Problem) -> dict[str, str]:
    return {"prompt": question(problem), "reference": str(problem[1]), "grader": "environment"}


def rows(recipe: Recipe) -> dict[str, list[dict[str, str]]]:
    training, heldout = problems(recipe)
    return {"train": list(map(row, training)), "heldout": list(map(row, heldout))}


def make_tokenizer() -> Any:
    return bundled.make_tokenizer(CHARACTERS, template=TEMPLATE)


def game(problem: Problem, draw: random.Random, *, halve: float, slip: float) -> list[str]:
    """The prompt, and the guesses and hints of one game in turn.

    slip: share of guesses that are any two digits. halve: share of the others that are the middle of what the hints leave; the
    rest is any number of it.
    """
    (left, number), said = problem, [question(problem)]
    for _ in range(GUESSES):
        if draw.random() < slip:
            guess = draw.randrange(100)
        else:
            guess = left[len(left) // 2] if draw.random() < halve else draw.choice(left)
        said.append(f"{guess:02d}")
        if guess == number:
            return said
        said.append(">" if guess < number else "<")
        left = tuple(one for one in left if (one > guess) == (number > guess) and one != guess)
    return said[:-1]


def encoded(said: list[str]) -> list[tuple[int, bool]]:
    """The tokens of a game, and which of them are to be learned: the guesses."""
    tokens = [(token, False) for token in bundled.numbered(CHARACTERS, said[0])]
    for turn, text in enumerate(said[1:]):
        if turn % 2 == 0:
            tokens += [(CHARACTERS.index(":") + FIRST, False)]
            tokens += [(token, True) for token in [*bundled.numbered(CHARACTERS, text), EOS]]
        else:
            tokens += [(token, False) for token in bundled.numbered(CHARACTERS, text)]
    return tokens


def make_model(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The starting model, and what was measured of it."""
    import torch

    draw, seeded = random.Random(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    model = bundled.new_model(recipe, FIRST + len(CHARACTERS) + 1)
    training, heldout = problems(recipe)

    def batch(slips: bool) -> Any:
        lists = [numbers(draw) for _ in range(recipe.batch)]
        slip = recipe.slip if slips else 0.0
        games = [game((one, draw.choice(one)), draw, halve=recipe.halve, slip=slip) for one in lists]
        return bundled.padded([encoded(said) for said in games])

    steps = bundled.supervise(
        model, recipe, batch, lambda: won_share(model, training[:500], seeded) >= recipe.clean_until, look_every=100
    )
    return model, {"supervised_steps": steps, "heldout_won": won_share(model, heldout * 4, seeded)}


def won_share(model: Any, asked: list[Problem], draw: Any) -> float:
    """Share of these problems' games that the model wins, sampled at temperature 1. draw: a torch.Generator."""
    import torch

    number = torch.tensor([number for _, number in asked])
    context = torch.tensor([bundled.numbered(CHARACTERS, question(problem)) for problem in asked])
    won = torch.zeros(len(asked), dtype=torch.bool)
    higher, lower, colon = (torch.tensor(bundled.numbered(CHARACTERS, sign)) for sign in "><:")
    for _ in range(GUESSES):
        context = torch.cat([context, colon.expand(len(asked), 1)], dim=1)
        context = bundled.sampled(model, context, OWN_TOKENS, draw)
        tens, ones = (context[:, -3:-1] - FIRST).unbind(1)
        readable = (context[:, -1] == EOS) & (tens >= 0) & (tens < 10) & (ones >= 0) & (ones < 10)
        guess = torch.where(readable, 10 * tens + ones, -1)
        won |= guess == number
        context = torch.cat([context, torch.where(guess < number, higher, lower)[:, None]], dim=1)
    return float(won.double().mean())


EXAMPLE = bundled.Example(
    make_model,
    make_tokenizer,
    takes="some minutes",
    learned="{heldout_won:.2f} of sampled held-out games won",
    rows=rows,
)


if __name__ == "__main__":
    EXAMPLE.main(Recipe, __doc__, HERE)
