"""These import math-verify in this process, which only grader processes do otherwise."""

import pytest

from verifier.graders.math_answer import MathAnswer
from verifier.scorer import ScoringFault


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("12", "12"),
        ("12", 12),
        ("The answer is \\boxed{12}.", "12"),
        ("so we get $x = 3$, and \\boxed{\\frac{1}{2}}", "0.5"),
        ("\\boxed{0.5}", "\\frac{1}{2}"),
        ("\\boxed{0.5}", 0.5),
        ("\\boxed{1{,}234}", "1,234"),
        ("\\boxed{1234}", "$1234$"),
        ("\\boxed{x^2 + 2x + 1}", "(x+1)^2"),
        ("\\boxed{2}", "x=2"),
        ("\\boxed{0.00000025}", 2.5e-7),
        ("\\boxed{100000}", "1e5"),
        ("\\boxed{123456789012345678901234567890}", "123456789012345678901234567890"),
    ],
)
def test_equal_answers_are_correct_however_they_are_written(response: str, reference: object) -> None:
    assert MathAnswer().score(response, reference).correct


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("13", "12"),
        ("", "12"),
        ("I do not know.", "12"),
        ("\\boxed{", "12"),
        ("\\boxed{\\frac{1}{0}}", "12"),
        ("\\boxed{12} no, wait, \\boxed{13}", "12"),
        ("\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}", "12"),
        ("\\boxed{x < 2}", "12"),
        ("(" * 3000 + "1" + ")" * 3000, "12"),
        ("\x00\ufffd\U0001f600" * 10, "12"),
        ("\\boxed{0.0000003}", 2.5e-7),
    ],
)
def test_a_response_that_is_wrong_or_cannot_be_read_is_incorrect(response: str, reference: object) -> None:
    judgement = MathAnswer(float_rounding=9).score(response, reference)
    assert not judgement.correct
    assert judgement.detail


@pytest.mark.parametrize("reference", ["", "???", "\\frac{", None, True, ["12"]])
def test_a_reference_that_cannot_be_read_is_a_fault_whatever_the_response(reference: object) -> None:
    for response in ("12", "???", ""):
        with pytest.raises(ScoringFault, match="reference"):
            MathAnswer().score(response, reference)


def test_gold_and_answer_are_not_swapped() -> None:
    # An assignment in the reference may be answered by its value; the other way round it is not an equation solved.
    assert MathAnswer().score("\\boxed{5}", "a=5").correct
    assert MathAnswer(strict=False).score("\\boxed{(1,2)}", "\\{1,2\\}").correct
    assert not MathAnswer().score("\\boxed{\\{1,2,3\\}}", "\\{1,2\\}").correct
