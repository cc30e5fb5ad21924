"""Grader `math` next to bare math-verify, on the test cases that math-verify publishes.

    git clone https://github.com/huggingface/Math-Verify
    python benchmarks/verifier/agreement.py Math-Verify [--json agreement.json]

The cases are read from that checkout's tests/ when this runs: every parametrized test with a gold answer, a prediction and an
expected verdict. Bare is verify(parse(gold), parse(prediction)) with all defaults. Their golds are responses as much as
references, several formulas and prose among them, so that ours gets the formula of the gold where there is just one.

Every case in which ours differs from the expected verdict is listed with a reason; where bare math-verify agreed with it and
ours does not for no reason of policy, the row is marked WORSE and the exit status is 1.
"""

import argparse
import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from math_verify import parse, verify

from verifier.grader import ScoringFault
from verifier.graders.math.extract import boxed
from verifier.graders.math.grader import MathAnswer


class Case(NamedTuple):
    function: str
    gold: str
    prediction: str
    expected: bool
    arguments: dict[str, Any]
    """The other parameters: a precision, a strictness."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of huggingface/Math-Verify")
    parser.add_argument("--json", type=Path, help="write the numbers and the differing cases here as well")
    arguments = parser.parse_args()
    cases = list(published_cases(arguments.checkout))
    rows = []
    for case in cases:
        bare = bool(verify(parse(case.gold), parse(case.prediction)))
        ours, detail = our_verdict(case)
        reason = "" if ours == case.expected else reason_of(case, detail)
        worse = bare == case.expected != ours and not reason
        rows.append({**case._asdict(), "bare": bare, "ours": ours, "detail": detail, "reason": reason, "worse": worse})
    table = per_function(rows)
    show(table, rows)
    if arguments.json:
        differing = [row for row in rows if row["ours"] != row["expected"]]
        arguments.json.write_text(
            json.dumps({"functions": table, "differing": differing}, indent=1, default=str) + "\n"
        )
    return int(any(row["worse"] for row in rows))


def published_cases(checkout: Path) -> Iterator[Case]:
    """Imports the test modules, whose parameters are evaluated Python; nothing in them is run."""
    sys.path.insert(0, str(checkout.resolve()))
    for path in sorted((checkout / "tests").glob("test_*.py")):
        module = importlib.import_module(f"tests.{path.stem}")
        for name, function in sorted(vars(module).items()):
            for mark in getattr(function, "pytestmark", []) if name.startswith("test_") else []:
                if mark.name == "parametrize":
                    yield from _cases_of(f"{path.stem}.{name}", mark)


def _cases_of(function: str, mark: pytest.Mark) -> Iterator[Case]:
    names = [name.strip() for name in mark.args[0].split(",")] if isinstance(mark.args[0], str) else list(mark.args[0])
    for values in mark.args[1]:
        given = dict(zip(names, values if isinstance(values, tuple | list) else (values,), strict=True))
        expected = given.pop("expected", given.pop("result", None))
        if expected is not None and "gold" in given and "pred" in given:
            yield Case(function, given.pop("gold"), given.pop("pred"), bool(expected), given)


def our_verdict(case: Case) -> tuple[bool, str]:
    reference = case.gold
    formulas = re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", reference, re.DOTALL)
    if boxed(reference) is None and len(formulas) == 1:
        reference = "".join(formulas[0])
    try:
        judgment = MathAnswer().score(case.prediction, reference)
    except ScoringFault as fault:
        return False, f"reference: {fault}"
    return judgment.correct, judgment.detail


def reason_of(case: Case, detail: str) -> str:
    """Why our policy judges otherwise on purpose; empty when it does not."""
    if (box := boxed(case.gold)) is not None and box.text is None:
        return "the gold's box is not closed"
    precision = case.arguments.get("precision", 6)
    for difference in KNOWN:
        if difference.holds(case):
            return difference.reason
    several_boxes = case.prediction.count("\\boxed") > 1 or case.gold.count("\\boxed") > 1
    if detail.startswith("reference:"):
        return (
            "the gold answer is not a reference of ours but a response" if len(case.gold) > 60 or several_boxes else ""
        )
    if several_boxes and case.expected:
        return "the last complete box decides; theirs joins neighbouring boxes"
    return f"a rounding to {precision} places is not equal" if precision != 6 else ""


class Difference(NamedTuple):
    reason: str
    parts: tuple[str, ...]
    """In the gold or the prediction of the cases that it explains, all of them."""

    def holds(self, case: Case) -> bool:
        return all(part in f"{case.gold} => {case.prediction}" for part in self.parts)


ROUNDED = "a decimal does not round an exact value unless the option tolerance says so"
CONTRADICTS = "a chain of equations that does not hold states several values"
COMMA = "a comma is not a decimal point: 1,22 is 1 and 22"
KNOWN = [
    Difference(ROUNDED, ("0.0833333333333333",)),
    Difference(ROUNDED, ("4.123105625617661",)),
    Difference(CONTRADICTS, ("5+5+1 = ",)),
    Difference(CONTRADICTS, ("z = 3+3 = 2",)),
    Difference(CONTRADICTS, (r"\zzz = x = 0",)),
    Difference(CONTRADICTS, (r"\frac{1}{2} \$ = \frac{10}{9}",)),
    Difference(COMMA, ("1000,99",)),
    Difference(COMMA, ("1,22",)),
    Difference(COMMA, ("2,74",)),
    Difference(COMMA, ("0,111",)),
    Difference(
        "the expected verdict is a slip: the signs differ", (r"1 - \frac{1}{\mathrm{e}}", r"1 + \frac{1}{\mathrm{e}}")
    ),
    Difference("a line break does not make a formula unreadable", ("Answer \\( \n 9",)),
    Difference("an inequality and its interval are equal both ways", (r"$x \in [-2,7]$ => $-2 ",)),
]


def per_function(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        count = counts.setdefault(row["function"], Counter())
        count["cases"] += 1
        count["bare"] += row["bare"] == row["expected"]
        count["ours"] += row["ours"] == row["expected"]
        count["on_purpose"] += bool(row["reason"])
        count["ours_false_positives"] += row["ours"] and not row["expected"]
        count["bare_false_positives"] += row["bare"] and not row["expected"]
        count["worse"] += row["worse"]
    total = sum(counts.values(), Counter())
    columns = ("cases", "bare", "ours", "on_purpose", "bare_false_positives", "ours_false_positives", "worse")
    return [
        {"function": name, **{column: count[column] for column in columns}}
        for name, count in [*counts.items(), ("total", total)]
    ]


def show(table: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    print(f"{'function':56} cases  bare  ours  on purpose  false positives bare/ours  worse")
    for row in table:
        false_positives = f"{row['bare_false_positives']}/{row['ours_false_positives']}"
        print(
            f"{row['function']:56} {row['cases']:5} {row['bare']:5} {row['ours']:5} {row['on_purpose']:11} "
            f"{false_positives:>26} {row['worse']:6}"
        )
    for row in rows:
        if row["ours"] != row["expected"]:
            verdict = "WORSE" if row["worse"] else "on purpose" if row["reason"] else "both differ"
            print(f"\n{verdict}: {row['function']}, expected {row['expected']}, bare {row['bare']}, ours {row['ours']}")
            print(f"  gold {row['gold'][-70:]!r}\n  prediction {row['prediction'][-70:]!r}")
            print(f"  {row['reason'] or row['detail']}")


if __name__ == "__main__":
    sys.exit(main())
