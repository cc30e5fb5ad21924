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

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402
from bundled import EOS, PAD  # noqa: E402

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
    """Prompt, answer and end of sequence as token ids, padded to one length."""
    length = PROMPT_TOKENS + RESPONSE_TOKENS
    found = []
    for pair in pairs:
        ids = [CHARACTERS.index(c) + 2 for c in question(source, pair) + answer(source, pair)] + [EOS]
        found.append(ids + [PAD] * (length - len(ids)))
    return found


def make_model(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """Train the starting model by supervision, and return it with what was measured: it learns to compute, then to slip."""
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
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    )
    draw = torch.Generator().manual_seed(recipe.seed)

    @torch.no_grad()
    def sampled_accuracy(asked: torch.Tensor) -> float:
        prompt, cache, right = asked[:, :PROMPT_TOKENS], None, torch.ones(len(asked), dtype=torch.bool)
        for position in range(PROMPT_TOKENS, asked.shape[1]):
            out = model(prompt, past_key_values=cache, use_cache=True)
            cache, wanted = out.past_key_values, asked[:, position]
            prompt = torch.multinomial(out.logits[:, -1].softmax(-1), 1, generator=draw)
            right &= (prompt[:, 0] == wanted) | (wanted == PAD)  # after the end nothing counts
        return right.float().mean().item()

    def with_slips(batch: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        digit = batch >= 2
        digit[:, :PROMPT_TOKENS] = False
        slipped = digit & (torch.rand(batch.shape, generator=draw) < share[:, None])
        return torch.where(slipped, torch.randint(2, 12, batch.shape, generator=draw), batch)

    split = {source: problems(recipe, source) for source in SIGNS}
    training = [torch.tensor(encoded(source, split[source][0])) for source in SIGNS]
    share = [torch.full((len(own),), recipe.slips[source]) for source, own in zip(SIGNS, training, strict=True)]
    pool, slips = torch.cat(training), torch.cat(share)
    probes = [own[:512] for own in training]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    step, slips_from = 0, None
    while slips_from is None or step < slips_from + recipe.slip_steps:
        step += 1
        left = 1.0 if slips_from is None else 1.0 - (step - slips_from) / recipe.slip_steps
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(1.0, step / recipe.warmup_steps) * max(0.1, left)
        chosen = torch.randint(len(pool), (recipe.batch,), generator=draw)
        batch = pool[chosen] if slips_from is None else with_slips(pool[chosen], slips[chosen])
        labels = batch.clone()
        labels[:, :PROMPT_TOKENS] = -100
        labels[batch == PAD] = -100
        model(batch, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if slips_from is None and step % 20 == 0 and min(map(sampled_accuracy, probes)) >= recipe.clean_until:
            slips_from = step
        if slips_from is None and step >= recipe.max_steps:
            raise SystemExit(f"the starting model did not learn to compute in {step} steps: change --seed")
    facts: dict[str, Any] = {"supervised_steps": step}
    for source in SIGNS:
        unseen = torch.tensor(encoded(source, split[source][1])).repeat(4, 1)
        facts[f"heldout_{source}"] = sampled_accuracy(unseen)
    return model.eval(), facts


def make(recipe: Recipe, out: Path) -> bool:
    """Make what is missing. Returns False if everything was there already."""
    made: bool = bundled.make(
        out,
        asdict(recipe),
        hashlib.sha256(json.dumps([asdict(recipe), recipe.slips]).encode()).hexdigest(),
        write_data=lambda folder: write_data(recipe, folder),
        train=lambda: make_model(recipe),
        tokenizer=lambda: bundled.make_tokenizer(CHARACTERS, "."),
        takes="two or three minutes",
        learned="{heldout_additions:.2f} of sampled held-out sums right and {heldout_subtractions:.2f} of the differences",
        files=[*SIGNS, *(f"heldout-{source}" for source in SIGNS)],
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder for data/ and model/ (default: next to this file)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights and of the order of training")
    arguments = parser.parse_args()
    make(Recipe(seed=arguments.seed), arguments.out)


if __name__ == "__main__":
    main()
