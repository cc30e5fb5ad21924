"""Builds the bundled guessing game: a number from 1 to 15 in at most four guesses, each answered with > (higher) or < (lower),
and a small model that knows how a guess looks and hardly heeds the hints.

    python examples/guessing/make_example.py [--out FOLDER] [--seed N]

Writes data/train.jsonl, data/heldout.jsonl (the same fifteen numbers: there are no others) and model/ (Qwen2, character
tokenizer with a chat template, safetensors) next to this file or under --out. Deterministic by seed; does nothing when the
outputs exist and were made by this recipe. The model of this recipe comes with the project, so the first run only writes the
data; to train the model again, delete model/ and wait a minute or two (one thread).

The model learns from the games of players who guess within what the hints leave half of the time and write any two digits
otherwise, so that it finds one number in four or five. Rewards at the end of each game have to teach it the rest: to halve
what is left.
"""

import argparse
import hashlib
import json
import random
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402
from bundled import EOS, PAD  # noqa: E402

CHARACTERS = "0123456789?<>:"
COLON = CHARACTERS.index(":") + 2
NUMBERS = range(1, 16)
GUESSES = 4
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}:{{ m.content }}<eos>{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}:{% endif %}"
)
"""The texts one behind the other; a colon opens the model's turn, and the end-of-sequence token closes it."""
TURN_TOKENS = 4
"""The colon, two digits and the end."""


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    layers: int = 3
    width: int = 64
    heads: int = 2
    kv_heads: int = 1
    feed_forward: int = 192
    batch: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 30
    steps: int = 400
    heed: float = 0.55
    """Share of guesses that the players make within what the hints leave; the others are any number."""
    slip: float = 0.45
    """Share of guesses that are any two digits."""


def write_data(folder: Path) -> None:
    bundled.write_rows(folder, {"train": map(row, NUMBERS), "heldout": map(row, NUMBERS)})


def row(number: int) -> dict[str, str]:
    return {"prompt": "?", "reference": str(number), "grader": "environment"}


def make_tokenizer() -> Any:
    """One token for each character, so that every digit is a decision of its own."""
    tokenizer = bundled.make_tokenizer(CHARACTERS, ".")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def game(number: int, recipe: Recipe, draw: random.Random) -> tuple[list[str], bool]:
    """(the guesses and hints of one game in turn, whether the number was found)."""
    low, high, said = NUMBERS.start, NUMBERS.stop - 1, ["?"]
    for _ in range(GUESSES):
        chance = draw.random()
        if chance < recipe.heed and low <= high:
            guess = draw.randint(low, high)
        elif chance < recipe.heed + recipe.slip:
            guess = draw.randint(0, 99)
        else:
            guess = draw.choice(NUMBERS)
        said.append(f"{guess:02d}")
        if guess == number:
            return said, True
        if guess < number:
            low = max(low, guess + 1)
            said.append(">")
        else:
            high = min(high, guess - 1)
            said.append("<")
    return said[:-1], False


def make_model(recipe: Recipe):  # type: ignore[no-untyped-def]
    """Train the starting model by supervision, and return it with what was measured."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    draw = random.Random(recipe.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=32,
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

    def encoded() -> tuple[torch.Tensor, torch.Tensor]:
        """Games, and the same with only the guesses to be learnt."""
        ids, labels = [], []
        for _ in range(recipe.batch):
            said, _ = game(draw.choice(NUMBERS), recipe, draw)
            own: list[tuple[int, bool]] = []
            for turn, text in enumerate(said):
                guesses = turn % 2 == 1
                own += [(COLON, False)] if guesses else []
                own += [(CHARACTERS.index(c) + 2, guesses) for c in text] + ([(EOS, True)] if guesses else [])
            own += [(PAD, False)] * ((1 + TURN_TOKENS) * GUESSES - len(own))
            ids.append([token for token, _ in own])
            labels.append([token if learnt else -100 for token, learnt in own])
        return torch.tensor(ids), torch.tensor(labels)

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(1, recipe.steps + 1):
        left = 1.0 - step / recipe.steps
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(1.0, step / recipe.warmup_steps) * max(0.1, left)
        batch, labels = encoded()
        model(batch, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), {"supervised_steps": recipe.steps, "solved": sampled_share(model, recipe.seed)}


def sampled_share(model: Any, seed: int, games: int = 150) -> float:
    """Share of games that the model wins, sampled at temperature 1: `games` for each number."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    numbers = [number for number in NUMBERS for _ in range(games)]
    context = torch.full((len(numbers), 1), CHARACTERS.index("?") + 2)
    won = torch.zeros(len(numbers), dtype=torch.bool)
    target = torch.tensor(numbers)
    with torch.no_grad():
        for _ in range(GUESSES):
            context = torch.nn.functional.pad(context, (0, 1), value=COLON)
            for _ in range(TURN_TOKENS - 1):
                logits = model(context).logits[:, -1]
                context = torch.cat([context, torch.multinomial(logits.softmax(-1), 1, generator=draw)], dim=1)
            tens, ones = (context[:, -3:-1] - 2).unbind(1)
            readable = (context[:, -1] == EOS) & (tens >= 0) & (tens < 10) & (ones >= 0) & (ones < 10)
            guess = torch.where(readable, 10 * tens + ones, -1)
            won |= guess == target
            hint = torch.where(guess < target, CHARACTERS.index(">") + 2, CHARACTERS.index("<") + 2)
            context = torch.cat([context, hint[:, None]], dim=1)
    return float(won.double().mean())


def recipe_hash(recipe: Recipe) -> str:
    """A digest of the settings: when one changes, the example is made again."""
    return hashlib.sha256(json.dumps(asdict(recipe)).encode()).hexdigest()


def make(recipe: Recipe, out: Path) -> bool:
    """Make what is missing. Returns False if everything was there already."""
    made: bool = bundled.make(
        out,
        asdict(recipe),
        recipe_hash(recipe),
        write_data=write_data,
        train=lambda: make_model(recipe),
        tokenizer=make_tokenizer,
        takes="a minute or two",
        learned="{solved:.2f} of sampled games won",
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder for data/ and model/ (default: next to this file)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights and of the players")
    arguments = parser.parse_args()
    make(Recipe(seed=arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
