"""These import math-verify in this process, which only grader processes do otherwise."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.grader import ScoringFault, build_grader
from verifier.graders.math.grader import MathAnswer

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "cases" / "math.jsonl").read_text(encoding="utf-8").splitlines()
]
CATEGORIES = Counter(case["category"] for case in CASES)


@pytest.fixture(scope="module")
def verdicts() -> list[tuple[dict[str, Any], str]]:
    judged = []
    for case in CASES:
        judgment = build_grader(MathAnswer, case.get("options", {})).score(case["response"], case["reference"])
        judged.append((case, "correct" if judgment.correct else "incorrect"))
    return judged


def test_the_grader_agrees_with_the_labelled_cases(verdicts: list[tuple[dict[str, Any], str]]) -> None:
    confusion = Counter((case["verdict"], verdict) for case, verdict in verdicts)
    print(f"\n{'expected':>12} {'correct':>10} {'incorrect':>10}")
    for expected in ("correct", "incorrect"):
        print(f"{expected:>12} {confusion[expected, 'correct']:10} {confusion[expected, 'incorrect']:10}")
    wrong = [(case["response"], case["reference"], verdict) for case, verdict in verdicts if verdict != case["verdict"]]
    assert len(wrong) <= 0.01 * len(CASES), wrong


def test_no_incorrect_answer_of_the_labelled_cases_gets_credit(verdicts: list[tuple[dict[str, Any], str]]) -> None:
    assert [case for case, verdict in verdicts if (case["verdict"], verdict) == ("incorrect", "correct")] == []


def test_the_labelled_cases_are_many_mostly_negative_and_cover_every_category() -> None:
    assert len(CASES) >= 500
    assert sum(case["verdict"] == "incorrect" for case in CASES) >= len(CASES) / 2
    assert min(CATEGORIES.values()) >= 15
    assert {"units", "intervals", "sets", "tuples", "matrices", "equations", "percent", "tolerance", "symmetry"} <= set(
        CATEGORIES
    )


@pytest.mark.parametrize("reference", sorted({case["reference"] for case in CASES}))
def test_every_reference_of_the_labelled_cases_is_usable(reference: str) -> None:
    if reference != "5e":  # Euler's number times 5, as a trap for 1e5
        MathAnswer().check(reference)


@pytest.mark.parametrize(
    "reference", ["", "???", "\\frac{", "x=", "\\boxed{", None, True, ["12"], "9^{9^{9^9}}", "(" * 500]
)
def test_a_reference_that_cannot_be_read_is_a_fault_whatever_the_response(reference: object) -> None:
    for response in ("12", "???", ""):
        with pytest.raises(ScoringFault, match="reference"):
            MathAnswer().score(response, reference)
    with pytest.raises(ScoringFault, match="reference"):
        MathAnswer().check(reference)


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        (12, "\\boxed{12}"),
        (0.5, "\\boxed{\\frac12}"),
        (2.5e-7, "\\boxed{0.00000025}"),
        (1e5, "\\boxed{100000}"),
        ("$12$", "12"),
    ],
)
def test_a_reference_may_be_a_number_or_a_formula(reference: object, response: str) -> None:
    MathAnswer().check(reference)
    assert MathAnswer().score(response, reference).correct


def test_the_verdict_names_the_reason_and_shows_little_of_the_answer() -> None:
    secret = "7" * 500
    for response in (f"\\boxed{{{secret}}}", f"\\boxed{{{secret}?}}", "\\boxed{}", "\\boxed{1", "no answer here", ""):
        detail = MathAnswer().score(response, "12").detail
        assert detail
        assert "7" * 61 not in detail


@pytest.mark.parametrize(
    "options", [{"tolerance": -0.1}, {"tolerance": 1.0}, {"tolerance": float("nan")}, {"percent": "x"}]
)
def test_wrong_options_are_faults_that_name_them(options: dict[str, object]) -> None:
    with pytest.raises(ScoringFault, match=r"tolerance|percent"):
        build_grader(MathAnswer, options)


def test_the_version_says_which_math_verify_judged() -> None:
    assert "math-verify 0." in MathAnswer.version


@given(st.fractions(max_denominator=999), st.fractions(max_denominator=999))
def test_two_fractions_are_equal_only_when_they_are(one: Any, other: Any) -> None:
    reference = f"\\frac{{{other.numerator}}}{{{other.denominator}}}"
    assert MathAnswer().score(f"\\boxed{{{one}}}", reference).correct is (one == other)


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6), st.randoms())
def test_a_list_is_unordered_and_a_tuple_is_not(numbers: list[int], random: Any) -> None:
    shuffled = random.sample(numbers, len(numbers))
    listed, reference = ", ".join(map(str, shuffled)), ", ".join(map(str, numbers))
    assert MathAnswer().score(f"\\boxed{{{listed}}}", reference).correct
    assert MathAnswer().score(f"\\boxed{{({listed})}}", f"({reference})").correct is (shuffled == numbers)
    assert not MathAnswer().score(f"\\boxed{{{listed}}}", str(numbers[0])).correct


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="0123456789xi+-*/^_=<>,;:.!|%()[]{} \\", max_size=25).map("\\boxed{{{}}}".format)
    | st.text(max_size=200)
)
def test_no_response_raises(response: str) -> None:
    MathAnswer().score(response, "\\frac{7919}{104729}")


@pytest.mark.parametrize(
    "flood",
    [
        "\\boxed{" * 150_000,
        "\\boxed{" + "1" * 1_000_000 + "}",
        "\\boxed{" + "(" * 1_000_000 + "}",
        "{" * 500_000 + "}" * 500_000,
        "$" * 1_000_000,
        "$1$ " * 250_000,
        "answer is " * 100_000,
        "the answer is " + "1 " * 500_000,
        "\\" * 1_000_000,
        "9" * 1_000_000,
        "\\(" * 500_000,
        "\\boxed{" + "\\frac{1}{" * 180 + "x" + "}" * 181,
        "$1$" + " So" * 300_000,
        "$1$ So it is " + "1" * 500_000,
        "\n" * 1_000_000,
        " " * 1_000_000,
        "\\boxed{" + "\\text{a} " * 200 + "1}",
        "\\boxed{1" + "\\text{a} " * 200 + "1}",
        "\\boxed{" + "\\abc " * 300 + "=1}",
        "\\boxed{" + "\\abc" * 300 + "1?=1}",
        "\\boxed{" + "-" * 1900 + "1}",
        "\\boxed{" + "\\pm " * 400 + "1}",
        "\\boxed{" + "1," * 900 + "1}",
        "\\boxed{" + "{" * 900 + "1" + "}" * 900 + "}",
    ],
)
def test_a_flood_is_incorrect_and_read_in_linear_time(flood: str) -> None:
    started = time.process_time()
    assert not MathAnswer().score(flood, "12").correct
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "bomb",
    [
        "9^{9^{9^9}}",
        "(10^{10})!",
        "9!!!!!!",
        "2^{10^{12}}",
        "\\sum_{k=1}^{10^{9}} k",
        "\\binom{10^9}{5}",
        "1e9999",
        "10^{10^{10}}x",
    ],
)
def test_a_number_too_large_to_write_is_refused_at_once(bomb: str) -> None:
    started = time.process_time()
    assert not MathAnswer().score(f"\\boxed{{{bomb}}}", "12").correct
    assert time.process_time() - started < 2


def test_a_product_of_matrices_too_large_to_work_out_is_refused_at_once() -> None:
    for row in ("x & " * 7 + "x", "9^{9999} & 1"):
        rows = " \\\\ ".join([row] * (row.count("&") + 1))
        matrix = rf"\begin{{pmatrix}} {rows} \end{{pmatrix}}"
        started = time.process_time()
        assert "large" in MathAnswer().score(f"\\boxed{{{matrix} {matrix}}}", "12").detail
        assert time.process_time() - started < 2
