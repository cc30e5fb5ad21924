"""Builds the bundled example of a tool: products of two-digit numbers, a calculator, and a small model that multiplies badly in
its head and seldom asks.

    python examples/calculator/make_example.py [--out FOLDER] [--seed N]

    [calculator]38*47=  :[calculator(expression="38*47")]  1786  :1786      the prompt, a call, the answer to it, the model's own

Writes data/train.jsonl, data/heldout.jsonl (disjoint) and model/ (Llama, a tokenizer with a chat template that names the tools,
safetensors) next to this file or under --out. Deterministic by seed; does nothing when the outputs exist and were made by this
recipe. The model of this recipe comes with the project, so the first run only writes the data; to train the model again, delete
model/ and wait a minute or two (one thread).

The model learns from people who call the calculator half of the time and else guess, roughly; then from people who seldom call
it, and slip when they copy. Only the reward for the right answer has to teach it to call, and to copy with care.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402
from bundled import EOS, FIRST, PAD  # noqa: E402

TOLD, BEGIN, END = "[calculator]", '[calculator(expression="', '")]'
TOKENS = [*"0123456789", "*", "=", ":", TOLD, BEGIN, END]
PIECES = r'\[calculator\]|\[calculator\(expression="|"\)\]|Error:[\s\S]*|.'
"""How text is split; what the tool says of a wrong call is one unknown token."""
TEMPLATE = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}:{{ m.content }}<eos>{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}:{% endif %}"
)
"""The tools by name, then the texts one behind the other; a colon opens the model's turn, the end-of-sequence token closes it."""
CALL_TOKENS, ANSWER_TOKENS = 8, 5  # the call with its end; up to four digits with theirs

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Recipe:
    seed: int = 0
    heldout: int = 250
    layers: int = 2
    width: int = 64
    heads: int = 2
    kv_heads: int = 1
    feed_forward: int = 192
    batch: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    clean_until: float = 0.43
    """The model learns from people who do not slip when they call until this share of its own answers is right; they call for
    half of the problems, and seldom guess right."""
    calls: float = 0.2
    """Share of problems for which the calculator is called from then on; half of them before."""
    slip: float = 0.06
    """Share of the digits of calls, and of answers to what was calculated, that are random ones from then on."""
    rough: float = 0.4
    """The same of the digits of guesses, from the beginning."""
    slip_steps: int = 150
    max_steps: int = 2000


class Share(NamedTuple):
    """Shares of sampled conversations."""

    called: float
    """Those in which the calculator was called."""
    right: float
    """Those that end with the right answer."""


def problems(recipe: Recipe) -> tuple[list[Pair], list[Pair]]:
    """All products of two two-digit numbers: those for training, and those held out. The split is the same for every seed."""
    pairs = ((a, b) for a in range(10, 100) for b in range(10, 100))
    split: tuple[list[Pair], list[Pair]] = bundled.split(pairs, recipe.heldout, 20262)
    return split


def question(pair: Pair) -> str:
    return f"{pair[0]}*{pair[1]}="


def row(pair: Pair) -> dict[str, str]:
    return {"prompt": question(pair), "reference": str(pair[0] * pair[1]), "grader": "exact"}


def rows(recipe: Recipe) -> dict[str, Iterator[dict[str, str]]]:
    training, heldout = problems(recipe)
    return {"train": map(row, training), "heldout": map(row, heldout)}


def make_tokenizer() -> Any:
    return bundled.make_tokenizer(TOKENS, PIECES, TEMPLATE)


def numbered(*pieces: str) -> list[int]:
    """Token numbers. pieces: tokens, or digits and signs in a row."""
    return [TOKENS.index(one) + FIRST for piece in pieces for one in ([piece] if piece in TOKENS else piece)]


def conversation(pair: Pair, recipe: Recipe, draw: random.Random, *, slips: bool) -> list[tuple[int, bool]]:
    """The tokens of a conversation, and which of them are to be learned: what the asked one says."""

    def with_slips(text: str, share: float) -> str:
        return "".join(draw.choice("0123456789") if c.isdigit() and draw.random() < share else c for c in text)

    product, slip = str(pair[0] * pair[1]), recipe.slip if slips else 0.0
    said = [(token, False) for token in numbered(TOLD, question(pair), ":")]
    if draw.random() >= (recipe.calls if slips else 0.5):
        return [*said, *_own(numbered(with_slips(product, recipe.rough)))]
    asked = with_slips(question(pair)[:-1], slip)
    first, second = asked.split("*")
    found = str(int(first) * int(second))
    said += [*_own(numbered(BEGIN, asked, END)), *((token, False) for token in numbered(found, ":"))]
    return [*said, *_own(numbered(with_slips(found, slip)))]


def _own(tokens: list[int]) -> list[tuple[int, bool]]:
    return [(token, True) for token in [*tokens, EOS]]


def make_model(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The starting model, and what was measured of it."""
    import torch

    draw, seeded = random.Random(recipe.seed), torch.Generator().manual_seed(recipe.seed)
    model = bundled.new_model(recipe, FIRST + len(TOKENS) + 1, kind="llama")
    training, heldout = problems(recipe)

    def batch(slips: bool) -> Any:
        chosen = draw.choices(training, k=recipe.batch)
        return bundled.padded([conversation(pair, recipe, draw, slips=slips) for pair in chosen])

    steps = bundled.supervise(
        model,
        recipe,
        batch,
        lambda: shares(model, training[:200], seeded).right >= recipe.clean_until,
        look_every=50,
    )
    share = shares(model, heldout * 2, seeded)
    return model, {"supervised_steps": steps, "heldout_called": share.called, "heldout_right": share.right}


def shares(model: Any, asked: list[Pair], draw: Any) -> Share:
    """What the model does, sampled at temperature 1. draw: a torch.Generator."""
    import torch

    prompts = torch.tensor([numbered(TOLD, question(pair), ":") for pair in asked])
    first = bundled.sampled(model, prompts, CALL_TOKENS, draw)[:, prompts.shape[1] :].tolist()
    calls, right = 0, 0
    after: dict[int, list[tuple[list[int], int]]] = {}
    for pair, prompt, said in zip(asked, prompts.tolist(), first, strict=True):
        product, own = pair[0] * pair[1], _until_end(said)
        if own[:1] != numbered(BEGIN):
            right += own == numbered(str(product))
            continue
        calls += 1
        found = _calculated(own)
        if found is not None:
            context = [*prompt, *own, EOS, *numbered(found, ":")]
            after.setdefault(len(context), []).append((context, product))
    for of_length in after.values():
        contexts = torch.tensor([context for context, _ in of_length])
        answers = bundled.sampled(model, contexts, ANSWER_TOKENS, draw)[:, contexts.shape[1] :].tolist()
        right += sum(
            _until_end(said) == numbered(str(product)) for said, (_, product) in zip(answers, of_length, strict=True)
        )
    return Share(calls / len(asked), right / len(asked))


def _until_end(tokens: list[int]) -> list[int]:
    """What stands before the end of sequence; padding where there is no end, which no answer equals."""
    return tokens[: tokens.index(EOS)] if EOS in tokens else [PAD]


def _calculated(call: list[int]) -> str | None:
    """What the calculator says; None where it finds an error."""
    text = "".join(TOKENS[token - FIRST] if 0 <= token - FIRST < len(TOKENS) else "?" for token in call)
    first, sign, second = text.removeprefix(BEGIN).removesuffix(END).partition("*")
    if not (text.endswith(END) and sign and first.isdigit() and second.isdigit()):
        return None
    return str(int(first) * int(second))


EXAMPLE = bundled.Example(
    make_model,
    make_tokenizer,
    takes="a minute or two",
    learned="{heldout_right:.2f} of sampled held-out answers right, {heldout_called:.2f} with a call",
    rows=rows,
)


if __name__ == "__main__":
    EXAMPLE.main(Recipe, __doc__, HERE)
