"""What the bundled examples share: data, a tokenizer of whole words, and a small model that is trained by supervision, once.

A model first learns from right responses, then from responses with slips in them, like a model that was pretrained on the work of
people who make mistakes: it knows how, and is as careless as its data. Rewards have to teach it the rest.
"""

import argparse
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

PAD, EOS = 0, 1
FIRST = 2
"""Number of the first token after padding and end of sequence."""
IGNORED = -100
"""Label of the tokens that are not learned: prompts, what an environment says, padding."""

T = TypeVar("T")


class Recipe(Protocol):
    """What an example says of its model and of how it is trained."""

    @property
    def seed(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def feed_forward(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def slip_steps(self) -> int:
        """Steps on responses with slips, which come last; the learning rate falls over them."""

    @property
    def max_steps(self) -> int:
        """Most steps on right responses."""


@dataclass(frozen=True)
class Example:
    """What the make_example.py of one example makes, and its command line."""

    make_model: Callable[[Any], tuple[Any, dict[str, Any]]]
    """The starting model of a recipe, and what was measured of it."""
    make_tokenizer: Callable[[], Any]
    takes: str
    """How long training the model takes, for the user."""
    learned: str
    """A format string over what was measured."""
    rows: Callable[[Any], Mapping[str, Iterable[Mapping[str, Any]]]] = lambda _: {}
    """The rows of each file in data/, by the file's name without .jsonl."""
    decides: Callable[[Any], Any] = asdict
    """All that decides what is made from a recipe, as JSON: when it changes, the model is trained again."""

    def main(self, recipe: Callable[..., Recipe], description: str | None, here: Path) -> None:
        """Make what the command line says, for an example in the folder `here`."""
        arguments = parser(description, here).parse_args()
        self.make(recipe(seed=arguments.seed), arguments.out)

    def write_data(self, recipe: Recipe, folder: Path) -> None:
        """Write the rows into the folder, where other ones or none are there."""
        for name, rows in self.rows(recipe).items():
            folder.mkdir(parents=True, exist_ok=True)
            path, text = folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")

    def make(self, recipe: Recipe, out: Path) -> bool:
        """Make what is missing in data/ and model/ under `out`, or was made by another recipe. Returns False if the model was
        there already."""
        self.write_data(recipe, out / "data")
        made, digest = out / "model" / "made.json", self.digest(recipe)
        if (out / "model" / "model.safetensors").is_file() and made.is_file():
            if json.loads(made.read_text(encoding="utf-8"))["recipe"] == digest:
                return False
            made.unlink()
        began_s = time.monotonic()
        print(f"example: training the starting model in {out} ({self.takes}, once)", flush=True)
        model, facts = self.make_model(recipe)
        model.save_pretrained(out / "model", safe_serialization=True)
        self.make_tokenizer().save_pretrained(out / "model")
        told = {"recipe": digest, **asdict(recipe), **facts}  # type: ignore[call-overload]  # a Recipe is a dataclass
        made.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        print(
            f"example: ready in {time.monotonic() - began_s:.0f} s: {facts['supervised_steps']} steps, "
            f"{self.learned.format(**facts)}",
            flush=True,
        )
        return True

    def digest(self, recipe: Recipe) -> str:
        """One word for all that decides what is made."""
        return hashlib.sha256(json.dumps(self.decides(recipe)).encode()).hexdigest()


def parser(description: str | None, here: Path) -> argparse.ArgumentParser:
    """The command line of an example in the folder `here`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=here, help="folder for data/ and model/ (default: next to this file)")
    made.add_argument("--seed", type=int, default=0, help="seed of the initial weights and of what is learned from")
    return made


def split(problems: Iterable[T], heldout: int, seed: int | str) -> tuple[list[T], list[T]]:
    """(problems for training, this many held out), shuffled. seed: of the example, not of the recipe, so that its runs can be
    compared."""
    shuffled = list(problems)
    random.Random(seed).shuffle(shuffled)
    return shuffled[heldout:], shuffled[:heldout]


def make_tokenizer(tokens: Sequence[str], pieces: str = ".", template: str | None = None) -> Any:
    """A tokenizer of these tokens, numbered from FIRST. pieces: a regular expression; text is split into its matches, by default
    into its characters, so that every digit is a decision of its own. template: for chat messages."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": PAD, "<eos>": EOS, **{token: i + FIRST for i, token in enumerate(tokens)}}
    vocabulary["<unk>"] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    made.chat_template = template
    return made


def new_model(recipe: Recipe, vocabulary: int, *, kind: str = "qwen2", tied: bool = True) -> Any:
    """A model with random weights; on one thread, from the recipe's seed. kind: "qwen2", or "llama" for a tokenizer whose tokens
    have several characters: transformers puts Qwen2's own byte-level splitting in place of a saved tokenizer's."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(recipe.seed)
    kinds: dict[str, tuple[Any, Any]] = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
    }
    config, model = kinds[kind]
    return model(
        config(
            vocab_size=vocabulary,
            hidden_size=recipe.width,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=EOS,
            pad_token_id=PAD,
        )
    )


def supervise(
    model: Any,
    recipe: Recipe,
    batch: Callable[[bool], tuple[Any, Any]],
    learned: Callable[[], bool],
    *,
    look_every: int = 20,
) -> int:
    """Train the model on right responses until it has learned them, then on responses with slips. Returns the number of steps.

    batch: draws (token numbers, labels), int64 [B, L] each, given whether there are slips in them. learned: whether right
    responses have been learned; asked every `look_every` steps. Raises SystemExit if they are not within max_steps.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    step, slips_from = 0, None
    while slips_from is None or step < slips_from + recipe.slip_steps:
        step += 1
        left = 1.0 if slips_from is None else 1.0 - (step - slips_from) / recipe.slip_steps
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * min(1.0, step / recipe.warmup_steps) * max(0.1, left)
        tokens, labels = batch(slips_from is not None)
        model(tokens, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if slips_from is None and step % look_every == 0 and learned():
            slips_from = step
        if slips_from is None and step >= recipe.max_steps:
            raise SystemExit(f"the starting model did not learn the task in {step} steps: change --seed")
    model.eval()
    return step


def padded(rows: Sequence[Sequence[tuple[int, bool]]]) -> tuple[Any, Any]:
    """(token numbers, labels) of rows of (token, whether it is to be learned), int64 [B, L] each. Padding comes last, and
    attention is causal, so that no mask is needed."""
    import torch

    length = max(map(len, rows))
    tokens = [[token for token, _ in row] + [PAD] * (length - len(row)) for row in rows]
    labels = [[token if own else IGNORED for token, own in row] + [IGNORED] * (length - len(row)) for row in rows]
    return torch.tensor(tokens), torch.tensor(labels)


def numbered(tokens: Sequence[str], text: Iterable[str]) -> list[int]:
    """Token numbers of a text of one-character tokens, or of whole tokens. tokens: as `make_tokenizer` has them."""
    return [tokens.index(one) + FIRST for one in text]


def encoded(tokens: Sequence[str], texts: Iterable[tuple[str, str]], length: int) -> list[list[int]]:
    """Token numbers of each (prompt, answer) with an end of sequence behind it, padded to this length."""
    rows = [[*numbered(tokens, prompt + answer), EOS] for prompt, answer in texts]
    return [[*row, *[PAD] * (length - len(row))] for row in rows]


def slipping(rows: Any, share: Any, size: int, *, prompt_tokens: int, draw: Any) -> Callable[[bool], tuple[Any, Any]]:
    """`batch` of `supervise`: this many rows, any of these, with slips in their share of the digits.

    rows: int64 [N, L], prompts of one length and right responses, as `with_slips` wants them. share: float [N, 1].
    """
    import torch

    def batch(slips: bool) -> tuple[Any, Any]:
        chosen = torch.randint(len(rows), (size,), generator=draw)
        tokens = rows[chosen]
        if slips:
            tokens = with_slips(tokens, share[chosen], prompt_tokens=prompt_tokens, draw=draw)
        return tokens, labels_of(tokens, prompt_tokens)

    return batch


def labels_of(tokens: Any, prompt_tokens: int) -> Any:
    """Labels of rows with prompts of one length. int64 [B, L]."""
    labels = tokens.clone()
    labels[:, :prompt_tokens] = IGNORED
    labels[tokens == PAD] = IGNORED
    return labels


def with_slips(tokens: Any, share: Any, *, prompt_tokens: int, draw: Any) -> Any:
    """The same rows with this share of their responses' digits replaced by random ones. tokens: int64 [B, L], in which the digits
    are numbered from FIRST and come first; share: a number, or float [B, 1]."""
    import torch

    inside = tokens >= FIRST
    inside[:, :prompt_tokens] = False
    slipped = inside & (torch.rand(tokens.shape, generator=draw) < share)
    return torch.where(slipped, torch.randint(FIRST, FIRST + 10, tokens.shape, generator=draw), tokens)


def sampled_accuracy(model: Any, rows: Any, *, prompt_tokens: int, draw: Any) -> float:
    """Share of rows whose response the model samples at temperature 1. rows: int64 [B, L], prompts of one length and right
    responses."""
    found = sampled(model, rows[:, :prompt_tokens], rows.shape[1] - prompt_tokens, draw)
    right = (found == rows) | (rows == PAD)  # after the end nothing counts
    return float(right.all(1).float().mean())


def sampled(model: Any, context: Any, tokens: int, draw: Any) -> Any:
    """The context with as many tokens behind it, sampled at temperature 1. context: int64 [B, L]."""
    import torch

    read, cache = context, None
    with torch.no_grad():
        for _ in range(tokens):
            out = model(read, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            read = torch.multinomial(out.logits[:, -1].softmax(-1), 1, generator=draw)
            context = torch.cat([context, read], dim=1)
    return context
