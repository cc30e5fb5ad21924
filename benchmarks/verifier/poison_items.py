"""What a scoring service should never be sent and is: each with the one answer that is right.

Everything is made from a seed, and no two items of a kind are alike where it could matter that something is remembered. Among
the incorrect are right answers, so that a service which calls everything incorrect does not pass.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.verifier.poison_texts import (
    ANSWER,
    FLOODS,
    ODD_TEXTS,
    RIGHT_CODE,
    RIGHT_MATH,
    SQUARES,
    UNUSABLE,
    WRONG_CODE,
    WRONG_MATH,
)
from verifier.graders.blank import is_blank

MAX_BODY_BYTES = 2**18
LONGEST_FLOOD = MAX_BODY_BYTES * 9 // 10
MAX_DEPTH = 64


class Poison(NamedTuple):
    kind: str
    expected: str
    """A verdict, or the status with which the request is refused."""
    item: Mapping[str, Any]
    """Shares a request with others; without its id. Empty: `body` is a request."""
    body: bytes = b""


def poison(seed: int, count: int, bombs: int) -> list[Poison]:
    """So many in all, of which `bombs` run to their deadline. In random order; the same for the same seed."""
    rng = random.Random(seed)
    found = [bomb(number) for number in range(bombs)]
    turns = [make for make, turns in TURNS.items() for _ in range(turns)]
    rng.shuffle(turns)
    found += [turns[number % len(turns)](rng) for number in range(count - bombs)]
    rng.shuffle(found)
    return found


def bomb(number: int) -> Poison:
    """Computes without end: mostly a pattern that backtracks, in C; of every 24 one an integral for sympy, and one whose
    integral is the reference, so that no response could be judged."""
    integral = rf"\int_0^1 \frac{{x^{{{100 + number}}} \sin(x^3)}}{{\sqrt{{1 + x^7}}}} dx"
    if number % 24 == 22:
        return graded("bomb", "incorrect", "math", rf"\boxed{{{integral}}}", ANSWER)
    if number % 24 == 23:
        return graded("bomb", "error", "math", rf"\boxed{{{number}}}", integral)
    return graded("bomb", "incorrect", "regex", f"{number} {'a' * 60}!", r"\d+ (a|aa)+")


def graded(kind: str, expected: str, grader: str, response: str, reference: Any, **options: Any) -> Poison:
    return Poison(kind, expected, {"grader": grader, "response": response, "reference": reference, "options": options})


def malformed(rng: random.Random) -> Poison:
    item = {"id": "a", "grader": "exact", "response": str(rng.random()), "reference": ANSWER}
    whole = json.dumps({"items": [item]}).encode()
    makers: list[Callable[[], tuple[str, bytes]]] = [
        lambda: ("422", whole[: rng.randrange(1, len(whole))]),
        lambda: ("422", whole + whole),
        lambda: ("422", whole.replace(b'"response": "', b'"response": "\xff\xfe')),
        lambda: ("422", whole.replace(b'"response": "', b'"response": "\\ud800')),
        lambda: ("422", whole.replace(b'"reference": "41"', b'"reference": NaN')),
        lambda: ("422", rng.randbytes(rng.randrange(1, 4000))),
        lambda: ("422", whole.decode().encode("utf-16")),
        lambda: ("422", as_request({**item, "response": rng.choice([None, 41, 4.1, True, [], {}])})),
        lambda: ("422", as_request({**item, "prompt": "?"})),
        lambda: ("422", as_request({**item, "grader": f"exact{rng.random()}"})),
        lambda: ("422", as_request({**item, "options": rng.choice([[], None, "strip", 1])})),
        lambda: ("422", as_request({name: item[name] for name in rng.sample(sorted(item), 3)})),
        lambda: ("422", as_request(rng.choice([None, 1, "item", [], [item]]))),
        lambda: (
            "422",
            json.dumps(rng.choice([[], [item], "items", 41, {}, {"items": {}}, {"item": [item]}])).encode(),
        ),
        lambda: ("413", as_request({**item, "response": "x" * MAX_BODY_BYTES})),
    ]
    expected, body = rng.choice(makers)()
    return Poison("malformed", expected, {}, body)


def nested(rng: random.Random) -> Poison:
    depth = rng.choice([MAX_DEPTH + 1, 1000, 30_000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    deep = f"{opening * depth}1{closing * depth}"
    answer = f"{opening * (depth // 4)}1{closing * (depth // 4)}"  # escaped and in a request of at most MAX_BODY_BYTES
    shallow = f"{opening * 40}{rng.randrange(9)}{closing * 40}"
    brackets = rng.choice(["()", "{}", "[]"])
    within = rng.choice([300, 900])
    makers: list[Callable[[], Poison]] = [
        lambda: Poison("nested", "422", {}, deep.encode()),
        lambda: Poison("nested", "422", {}, as_request({**ITEM, "reference": None}).replace(b"null", deep.encode())),
        lambda: Poison("nested", "422", {}, as_request({**ITEM, "options": None}).replace(b"null", deep.encode())),
        lambda: graded("nested", "incorrect", "json", answer, {"value": 1}),
        lambda: graded("nested", "incorrect", "json", opening * (depth // 2), {"schema": {"type": "object"}}),
        lambda: graded("nested", "correct", "json", shallow, {"value": json.loads(shallow)}),
        lambda: graded(
            "nested", "incorrect", "math", rf"\boxed{{{brackets[0] * within}7{brackets[1] * within}}}", ANSWER
        ),
        lambda: graded("nested", "incorrect", "math", "\\boxed{" + "\\sqrt{" * 200 + "2" + "}" * 201, ANSWER),
        lambda: graded("nested", "incorrect", "math", "\\boxed{" * (depth // 4) + "7" + "}" * (depth // 4), ANSWER),
    ]
    return rng.choice(makers)()


def flood(rng: random.Random) -> Poison:
    """As long as a request may be, or nearly."""
    unit = rng.choice(FLOODS)
    # Characters take more bytes in JSON than in Python.
    room = LONGEST_FLOOD // len(json.dumps(unit)[1:-1])
    text = unit * int(room * rng.uniform(0.5, 1.0))
    grader, reference = rng.choice(
        [
            ("math", ANSWER),
            ("number", ANSWER),
            ("choice", "B"),
            ("exact", ANSWER),
            ("json", {"value": 41}),
            ("format", None),
            ("instructions", [{"type": "length_constraints:number_words", "num_words": 3, "relation": "exactly"}]),
        ]
    )
    if grader == "number" and unit == "x" and rng.random() < 0.5:
        return graded("flood", "correct", grader, f"{text}\nThe answer is {ANSWER}.", reference)
    return graded("flood", "incorrect", grader, text, reference)


def exact(verdict: str, response: str, reference: str, **options: Any) -> Poison:
    """The verdict, unless the reference is blank: then it is an error."""
    return graded("unicode", "error" if is_blank(reference) else verdict, "exact", response, reference, **options)


def unicode(rng: random.Random) -> Poison:
    text, other = rng.sample(ODD_TEXTS, 2)
    makers: list[Callable[[], Poison]] = [
        lambda: exact("correct", text, text),
        lambda: exact("incorrect", text, other),
        lambda: exact("correct", f"{text}#{other}#", other, pattern="#(.*)#", strip=False),
        lambda: graded("unicode", "correct", "json", json.dumps([text]), {"value": [text]}),
        lambda: graded("unicode", "incorrect", "json", json.dumps([text]), {"value": [other]}),
        lambda: graded("unicode", "incorrect", "math", rf"\boxed{{{text}}}", "7"),
        lambda: graded("unicode", "incorrect", "number", f"The answer is {text}.", "7"),
        lambda: graded("unicode", "incorrect", "choice", f"The answer is {text}.", "B"),
    ]
    made = rng.choice(makers)()
    if made.item["grader"] == "exact" and made.item["options"]:
        plain = "\n" not in text + other and "#" not in text + other
        return made if plain else exact("correct", text, text)
    return made


def math(rng: random.Random) -> Poison:
    wrong = rng.random() < 0.85
    answer = rng.choice(WRONG_MATH if wrong else RIGHT_MATH)
    before = rng.choice(["", r"\boxed{41} no, ", r"\boxed{40} no, ", r"\boxed{ ", f"Case {rng.random()}: "])
    return graded("math", "incorrect" if wrong else "correct", "math", rf"{before}\boxed{{{answer}}}", ANSWER)


def code(rng: random.Random) -> Poison:
    """What does not stop is stopped after wall_s; right programs get more, as the machine is busy with all this."""
    if rng.random() < 0.15:
        return graded("code", "correct", "code", rng.choice(RIGHT_CODE), SQUARES, wall_s=8.0)
    return graded("code", "incorrect", "code", f"{rng.choice(WRONG_CODE)}\n# {rng.random()}", SQUARES, wall_s=0.4)


def unusable(rng: random.Random) -> Poison:
    """A reference or an option that nothing can be judged by: never the response's fault."""
    grader, reference, options = rng.choice(UNUSABLE)
    return graded("unusable", "error", grader, f"\\boxed{{{rng.randrange(99)}}}", reference, **options)


TURNS: Mapping[Callable[[random.Random], Poison], int] = {
    malformed: 18,
    nested: 12,
    flood: 8,
    unicode: 16,
    math: 28,
    code: 6,
    unusable: 12,
}
"""How many of each hundred that are not bombs."""

ITEM = {"id": "a", "grader": "exact", "response": "41", "reference": ANSWER}


def as_request(*items: Any) -> bytes:
    return json.dumps({"items": items}).encode()


def requests(items: list[Poison], rng: random.Random) -> Iterator[list[Poison]]:
    """What goes out together: up to 8 graded items, as many bytes as a request may have, or one body of its own."""
    waiting: list[Poison] = []
    size, most = 0, rng.randint(1, 8)
    for one in items:
        if one.body:
            yield [one]
            continue
        length = len(json.dumps(one.item)) + 100
        if waiting and (len(waiting) >= most or size + length > MAX_BODY_BYTES):
            yield waiting
            waiting, size, most = [], 0, rng.randint(1, 8)
        waiting.append(one)
        size += length
    if waiting:
        yield waiting
