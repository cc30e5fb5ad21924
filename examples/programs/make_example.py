"""Builds the bundled example of grader `code`: one-line Python functions that do three things to a list of whole numbers,
and a small model that writes about two in five of them right, which is where reinforcement learning takes over.

    python examples/programs/make_example.py [--out FOLDER] [--seed N]

    # drop last, square each, sum        the prompt: one comment line
    def f(x):return sum([y*y for y in x[:-1]])

Most steps can be written in more than one way, and every program that passes the tests is right, whether it is written in
one of these ways or not. Writes data/train.jsonl, data/heldout.jsonl (other problems, never trained on by supervision or by
rewards) and model/ next to this file or under --out. Deterministic by seed; does nothing when the outputs exist and were
made by this recipe. The model of this recipe comes with the project, so the first run only writes the data; to train the
model again, delete model/ and wait some minutes (one thread).

The model first learns from right solutions of the training problems, then from solutions with slips in them: a step left
out, two steps swapped, one step replaced by another, a mistyped token. It knows how to write these functions and is as
careless as its data; rewards have to teach it not to be. (So this does not test whether rewards teach how to program.)
"""

import operator
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))  # of a script, Python finds only the files beside it

import bundled  # noqa: E402
from bundled import FIRST  # noqa: E402
from make_model import Lesson, Recipe, train  # noqa: E402

HELDOUT = 128  # problems


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    apply: Callable[[Any], Any]
    writings: tuple[str, ...]
    """Python for this step, the plainest first; {} stands for what comes before it."""


LISTS = (  # a list to a list
    Step("reverse", lambda x: x[::-1], ("{}[::-1]", "list(reversed({}))")),
    Step("sort", sorted, ("sorted({})",)),
    Step("drop first", lambda x: x[1:], ("{}[1:]",)),
    Step("drop last", lambda x: x[:-1], ("{}[:-1]",)),
    Step("double each", lambda x: [y * 2 for y in x], ("[y*2 for y in {}]", "[y+y for y in {}]")),
    Step("square each", lambda x: [y * y for y in x], ("[y*y for y in {}]",)),
    Step("negate each", lambda x: [-y for y in x], ("[-y for y in {}]",)),
    Step("abs each", lambda x: [abs(y) for y in x], ("[abs(y) for y in {}]", "list(map(abs,{}))")),
)
REDUCTIONS = (  # a list to a number
    Step("sum", sum, ("sum({})",)),
    Step("max", max, ("max({})", "sorted({})[-1]")),
    Step("min", min, ("min({})", "sorted({})[0]")),
    Step("first", lambda x: x[0], ("{}[0]",)),
    Step("last", lambda x: x[-1], ("{}[-1]",)),
    Step("count", len, ("len({})",)),
)
NUMBERS = (  # a number to a number
    *(Step(f"add {k}", partial(operator.add, k), (f"{{}}+{k}", f"{k}+{{}}")) for k in range(2, 6)),
    *(Step(f"times {k}", partial(operator.mul, k), (f"{{}}*{k}", f"{k}*{{}}")) for k in range(2, 6)),
)
Problem = tuple[Step, ...]

# fmt: off
PYTHON_WORDS = (
    "def ", "return ", " for ", " in ", "f", "x", "y",
    "abs", "len", "list", "map", "max", "min", "reversed", "sorted", "sum",
)
SYMBOLS = "()[]:,-+*=0123456789"
PROMPT_WORDS = (
    "# ", ", ", " ", "\n",
    "add", "count", "double", "drop", "each", "first", "last", "negate", "reverse", "sort", "square", "times",
)
# fmt: on
TOKENS = (*PYTHON_WORDS, *SYMBOLS, *PROMPT_WORDS)
PIECES = r"def |return | for | in |# |, |[a-z]+|[\s\S]"
"""What the tokenizer splits text into; the first alternative that matches."""
FIXED = 7  # tokens of `def f(x):return `
RESPONSE_TOKENS = 36  # longest response, with the end of sequence


def problems() -> tuple[list[Problem], list[Problem]]:
    """All chains of three steps that end in a number: those for training, and those held out."""
    chains: list[Problem] = [chain for chain in product(LISTS, LISTS, REDUCTIONS) if chain[0] is not chain[1]]
    chains += product(LISTS, REDUCTIONS, NUMBERS)
    random.Random(20261).shuffle(chains)  # the split is the same for every seed, so that runs can be compared
    return chains[HELDOUT:], chains[:HELDOUT]


def question(problem: Problem) -> str:
    return f"# {', '.join(step.name for step in problem)}\n"


def solutions(problem: Problem) -> Iterator[str]:
    """All ways of writing the program that are taught, the plainest first."""
    for writings in product(*(step.writings for step in problem)):
        body = "x"
        for writing in writings:
            body = writing.replace("{}", body)
        yield f"def f(x):return {body}"


def neighbors(problem: Problem) -> list[Problem]:
    """What a slip makes of a problem: one step left out, two swapped, or one replaced by another."""
    found = [problem[:place] + problem[place + 1 :] for place in range(len(problem))]
    first, second, third = problem
    found += [(second, first, third), (first, third, second)]
    for place, step in enumerate(problem):
        family = next(family for family in (LISTS, REDUCTIONS, NUMBERS) if step in family)
        found += [(*problem[:place], other, *problem[place + 1 :]) for other in family if other is not step]
    return found


def run(problem: Problem, given: list[int]) -> Any:
    """What the steps make of a list; None when a step cannot take what the step before it left."""
    result: Any = given
    try:
        for step in problem:
            result = step.apply(result)
    except (TypeError, IndexError, ValueError):
        return None
    return result


@cache
def reference(problem: Problem) -> dict[str, Any]:
    """The tests of a problem: at least four, chosen so that no neighbor that differs from it passes them all."""
    draw = random.Random(question(problem))
    inputs = [[draw.randint(-9, 9) for _ in range(draw.randint(4, 6))] for _ in range(100)]
    expected = [run(problem, given) for given in inputs]
    told_apart = {place: set[int]() for place in range(len(inputs))}
    for number, neighbor in enumerate(neighbors(problem)):
        for place, given in enumerate(inputs):
            if run(neighbor, given) != expected[place]:
                told_apart[place].add(number)
    chosen: list[int] = []
    remaining = set().union(*told_apart.values())
    while remaining or len(chosen) < 4:
        best = max((place for place in told_apart if place not in chosen), key=lambda p: len(told_apart[p] & remaining))
        chosen.append(best)
        remaining -= told_apart[best]
    tests = [{"args": [inputs[place]], "expected": expected[place]} for place in chosen]
    return {"kind": "function", "entry_point": "f", "tests": tests}


def slipped(problem: Problem, draw: random.Random) -> list[str]:
    """The tokens of a solution with one slip in it. Sometimes it is right all the same."""
    if draw.random() < 0.25:
        pieces = split(draw.choice(list(solutions(problem))))
        pieces[draw.randrange(FIXED, len(pieces))] = draw.choice((*PYTHON_WORDS, *SYMBOLS))
        return pieces
    return split(draw.choice(list(solutions(draw.choice(neighbors(problem))))))


def split(text: str) -> list[str]:
    return re.findall(PIECES, text)


def rows(_: Recipe) -> dict[str, Iterator[dict[str, Any]]]:
    training, heldout = problems()
    return {"train": map(row, training), "heldout": map(row, heldout)}


def row(problem: Problem) -> dict[str, Any]:
    return {"prompt": question(problem), "reference": reference(problem), "grader": "code"}


def make_tokenizer() -> Any:
    """One token for each word, digit and sign; a keyword and its space are one, as in a trained vocabulary."""
    return bundled.make_tokenizer(TOKENS, PIECES)


def lessons(chains: list[Problem]) -> list[Lesson]:
    number = {token: i + FIRST for i, token in enumerate(TOKENS)}

    def encoded(pieces: list[str]) -> list[int]:
        return [number[piece] for piece in pieces]

    return [
        Lesson(
            encoded(split(question(chain))),
            [encoded(split(text)) for text in solutions(chain)],
            lambda draw, chain=chain: encoded(slipped(chain, draw)),
        )
        for chain in chains
    ]


def decides(recipe: Recipe) -> list[Any]:
    """The settings and what is taught."""
    taught = [[step.name, *step.writings] for step in (*LISTS, *REDUCTIONS, *NUMBERS)]
    return [asdict(recipe), taught, TOKENS, HELDOUT]


def make_model(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """The starting model, and what was measured of it."""
    training, heldout = problems()
    model, facts = train(recipe, lessons(training), lessons(heldout), FIRST + len(TOKENS) + 1, RESPONSE_TOKENS)
    return model, facts


EXAMPLE = bundled.Example(
    make_model,
    make_tokenizer,
    takes="some minutes",
    learned="{heldout_written_as_taught:.2f} of sampled held-out programs written as taught",
    rows=rows,
    decides=decides,
)


if __name__ == "__main__":
    EXAMPLE.main(Recipe, __doc__, HERE)
