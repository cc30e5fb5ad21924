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
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    random.Random(20260).shuffle(pairs)  # the split is the same for every seed, so that runs can be compared
    return pairs[recipe.heldout :], pairs[: recipe.heldout]


def question(pair: tuple[int, int]) -> str:
    return f"{pair[0]}+{pair[1]}="


def answer(pair: tuple[int, int]) -> str:
    return str(sum(pair))[::-1]


def write_data(recipe: Recipe, folder: Path) -> None:
    training, heldout = problems(recipe)
    bundled.write_rows(folder, {"train": map(row, training), "heldout": map(row, heldout)})


def row(pair: tuple[int, int]) -> dict[str, str]:
    return {"prompt": question(pair), "reference": answer(pair), "grader": "exact"}


def make_tokenizer() -> Any:
    """One token for each character, so that every digit is a decision of its own."""
    return bundled.make_tokenizer(CHARACTERS, ".")


def make_model(recipe: Recipe):  # type: ignore[no-untyped-def]
    """Train the starting model by supervision, and return it with what was measured: it learns to add, then to slip."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=16,
            hidden_size=recipe.width,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            max_position_embeddings=64,
            tie_word_embeddings=recipe.tied,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    )
    draw = torch.Generator().manual_seed(recipe.seed)

    def encoded(pairs: list[tuple[int, int]]) -> torch.Tensor:
        rows = []
        for pair in pairs:
            ids = [CHARACTERS.index(c) + 2 for c in question(pair) + answer(pair)] + [EOS]
            rows.append(ids + [PAD] * (PROMPT_TOKENS + RESPONSE_TOKENS - len(ids)))
        return torch.tensor(rows)

    @torch.no_grad()
    def sampled_accuracy(rows: torch.Tensor) -> float:
        prompt, cache, right = rows[:, :PROMPT_TOKENS], None, torch.ones(len(rows), dtype=torch.bool)
        for position in range(PROMPT_TOKENS, rows.shape[1]):
            out = model(prompt, past_key_values=cache, use_cache=True)
            cache, wanted = out.past_key_values, rows[:, position]
            token = torch.multinomial(out.logits[:, -1].softmax(-1), 1, generator=draw)
            right &= (token[:, 0] == wanted) | (wanted == PAD)  # after the end nothing counts
            prompt = token
        return right.float().mean().item()

    def with_slips(rows: torch.Tensor) -> torch.Tensor:
        digit = rows >= 2
        digit[:, :PROMPT_TOKENS] = False
        slipped = digit & (torch.rand(rows.shape, generator=draw) < recipe.slip)
        return torch.where(slipped, torch.randint(2, 12, rows.shape, generator=draw), rows)

    training, heldout = problems(recipe)
    rows, probe, unseen = encoded(training), encoded(training[:1024]), encoded(heldout).repeat(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    step, slips_from = 0, None
    while slips_from is None or step < slips_from + recipe.slip_steps:
        step += 1
        left = 1.0 if slips_from is None else 1.0 - (step - slips_from) / recipe.slip_steps
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(1.0, step / recipe.warmup_steps) * max(0.1, left)
        batch = rows[torch.randint(len(rows), (recipe.batch,), generator=draw)]
        if slips_from is not None:
            batch = with_slips(batch)
        labels = batch.clone()
        labels[:, :PROMPT_TOKENS] = -100
        labels[batch == PAD] = -100
        model(batch, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if slips_from is None and step % 20 == 0 and sampled_accuracy(probe) >= recipe.clean_until:
            slips_from = step
        if slips_from is None and step >= recipe.max_steps:
            raise SystemExit(f"the starting model did not learn to add in {step} steps: change --seed")
    facts = {"supervised_steps": step, "heldout_accuracy": sampled_accuracy(unseen)}
    return model.eval(), facts


def recipe_hash(recipe: Recipe) -> str:
    """A digest of the settings: when one changes, the example is made again."""
    return hashlib.sha256(json.dumps(asdict(recipe)).encode()).hexdigest()


def make(recipe: Recipe, out: Path) -> bool:
    """Make what is missing. Returns False if everything was there already."""
    made: bool = bundled.make(
        out,
        asdict(recipe),
        recipe_hash(recipe),
        write_data=lambda folder: write_data(recipe, folder),
        train=lambda: make_model(recipe),
        tokenizer=make_tokenizer,
        takes="a minute or two",
        learned="{heldout_accuracy:.2f} of sampled held-out sums right",
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder for data/ and model/ (default: next to this file)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights and of the order of training")
    parser.add_argument("--untied", action="store_true", help="separate input and output embeddings")
    arguments = parser.parse_args()
    make(Recipe(seed=arguments.seed, tied=not arguments.untied), arguments.out)


if __name__ == "__main__":
    main()
