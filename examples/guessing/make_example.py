"""Builds the bundled guessing game: a number among seven in at most three guesses, each answered with > (higher) or < (lower),
and a small model that can halve what is left, and seldom does.

    python examples/guessing/make_example.py [--out FOLDER] [--seed N]

    37-43  :40  >  :42  <  :41         the prompt, three guesses and two hints; 41 is the number

Writes data/train.jsonl, data/heldout.jsonl (ranges that are not trained on) and model/ (Qwen2, character tokenizer with a chat
template, safetensors) next to this file or under --out. Deterministic by seed; does nothing when the outputs exist and were made
by this recipe. The model of this recipe comes with the project, so the first run only writes the data; to train the model again,
delete model/ and wait some minutes (one thread).

The model learns from the games of players who guess any number that the hints leave, and then from those of players who mostly
write any two digits, in all ranges, so that it wins one game in six. Rewards at the end of each game, in four ranges of five,
have to teach it the rest: to heed the hints, which wins two games in three, and to halve what is left, which wins them all.
"""

import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402
from bundled import EOS, FIRST  # noqa: E402

CHARACTERS = "0123456789-?<>:"
NUMBERS, GUESSES = 7, 3
LOWEST = range(10, 100 - NUMBERS + 1)
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}:{{ m.content }}<eos>{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}:{% endif %}"
)
"""The texts one behind the other; a colon opens the model's turn, and the end-of-sequence token closes it."""


TURN_TOKENS = 4
"""The colon, two digits and the end."""

Problem = tuple[int, int]
"""The lowest of the numbers, and the one to find."""


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    heldout: int = 17
    """Ranges, a fifth of them, in which no game is rewarded."""
    layers: int = 3
    width: int = 64
    heads: int = 2
    kv_heads: int = 1
    feed_forward: int = 192
    batch: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    clean_until: float = 0.65
    """The model learns from players without slips until it wins this share of games; they win 0.71."""
    halve: float = 0.15
    """Share of those players' guesses that are the middle of what is left; the others are any number of it."""
    slip: float = 0.52
    """Share of guesses that are any two digits from then on."""
    slip_steps: int = 60
    max_steps: int = 3000


def problems(recipe: Recipe) -> tuple[list[Problem], list[Problem]]:
    """All problems: those for training, and those of the ranges held out. The split is the same for every seed."""
    lowest = list(LOWEST)
    random.Random(20261).shuffle(lowest)
    every = [(low, low + more) for low in lowest for more in range(NUMBERS)]
    return every[recipe.heldout * NUMBERS :], every[: recipe.heldout * NUMBERS]


def question(problem: Problem) -> str:
    return f"{problem[0]}-{problem[0] + NUMBERS - 1}"


def row(problem: Problem) -> dict[str, str]:
    return {"prompt": question(problem), "reference": str(problem[1]), "grader": "environment"}


def write_data(recipe: Recipe, folder: Path) -> None:
    training, heldout = problems(recipe)
    bundled.write_rows(folder, {"train": map(row, training), "heldout": map(row, heldout)})


def make_tokenizer() -> Any:
    return bundled.make_tokenizer(CHARACTERS, template=TEMPLATE)


def game(problem: Problem, recipe: Recipe, draw: random.Random, *, slips: bool) -> list[str]:
    """The prompt, and the guesses and hints of one game in turn."""
    (low, number), said = problem, [question(problem)]
    high = low + NUMBERS - 1
    for _ in range(GUESSES):
        if slips and draw.random() < recipe.slip:
            guess = draw.randint(0, 99)
        elif draw.random() < recipe.halve:
            guess = (low + high) // 2
        else:
            guess = draw.randint(low, high)
        said.append(f"{guess:02d}")
        if guess == number:
            return said
        said.append(">" if guess < number else "<")
        low, high = (max(low, guess + 1), high) if guess < number else (low, min(high, guess - 1))
    return said[:-1]


def numbered(text: str) -> list[int]:
    return [CHARACTERS.index(character) + FIRST for character in text]


def encoded(said: list[str]) -> list[tuple[int, bool]]:
    """The tokens of a game, and which of them are to be learned: the guesses."""
    tokens = [(token, False) for token in numbered(said[0])]
    for turn, text in enumerate(said[1:]):
        if turn % 2 == 0:
            tokens += [*((token, place > 0) for place, token in enumerate(numbered(f":{text}"))), (EOS, True)]
        else:
            tokens += [(token, False) for token in numbered(text)]
    return tokens


def make_model(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The starting model, and what was measured of it."""
    import torch

    draw, seeded = random.Random(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    model = bundled.new_model(recipe, FIRST + len(CHARACTERS) + 1)
    rewarded, heldout = problems(recipe)
    every = [*rewarded, *heldout]

    def batch(slips: bool) -> Any:
        chosen = draw.choices(every, k=recipe.batch)
        return bundled.padded([encoded(game(problem, recipe, draw, slips=slips)) for problem in chosen])

    steps = bundled.supervise(
        model, recipe, batch, lambda: won_share(model, every[::2], seeded) >= recipe.clean_until, look_every=100
    )
    return model, {"supervised_steps": steps, "heldout_won": won_share(model, heldout * 4, seeded)}


def won_share(model: Any, asked: list[Problem], draw: Any) -> float:
    """Share of these problems' games that the model wins, sampled at temperature 1. draw: a torch.Generator."""
    import torch

    number = torch.tensor([number for _, number in asked])
    context = torch.tensor([numbered(question(problem)) for problem in asked])
    won = torch.zeros(len(asked), dtype=torch.bool)
    higher, lower, colon = (torch.tensor(numbered(sign)) for sign in "><:")
    for _ in range(GUESSES):
        context = torch.cat([context, colon.expand(len(asked), 1)], dim=1)
        context = bundled.sampled(model, context, TURN_TOKENS - 1, draw)
        tens, ones = (context[:, -3:-1] - FIRST).unbind(1)
        readable = (context[:, -1] == EOS) & (tens >= 0) & (tens < 10) & (ones >= 0) & (ones < 10)
        guess = torch.where(readable, 10 * tens + ones, -1)
        won |= guess == number
        context = torch.cat([context, torch.where(guess < number, higher, lower)[:, None]], dim=1)
    return float(won.double().mean())


def make(recipe: Recipe, out: Path) -> bool:
    """Make what is missing. Returns False if everything was there already."""
    made: bool = bundled.make(
        out,
        asdict(recipe),
        bundled.digest(asdict(recipe)),
        write_data=lambda folder: write_data(recipe, folder),
        train=lambda: make_model(recipe),
        tokenizer=make_tokenizer,
        takes="some minutes",
        learned="{heldout_won:.2f} of sampled held-out games won",
    )
    return made


def main() -> None:
    arguments = bundled.parser(__doc__, HERE).parse_args()
    make(Recipe(seed=arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
