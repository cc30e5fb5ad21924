"""Which part of a response is its answer."""

import pytest

from verifier.graders.math.extract import LONGEST_ANSWER, Found, boxed, stated


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("\\boxed{1} and \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{a\\}b}", "a\\}b"),
        ("\\boxed{1} then \\boxed{2", "1"),
        ("\\boxed{x = \\boxed{3}}", "x = \\boxed{3}"),
        ("\\\\boxed{4}", "4"),
    ],
)
def test_the_box_that_closes_last_decides(response: str, answer: str) -> None:
    assert boxed(response) == Found(answer)


def test_a_response_without_a_box_has_none() -> None:
    assert boxed("The answer is 5.") is None


@pytest.mark.parametrize(
    ("response", "why"),
    [("\\boxed{1", "not closed"), ("\\boxed{ }", "empty"), (f"\\boxed{{{'1' * (LONGEST_ANSWER + 1)}}}", "too long")],
)
def test_a_box_that_holds_no_answer_says_why(response: str, why: str) -> None:
    found = boxed(response)
    assert found is not None
    assert found.text is None
    assert why in found.why


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("We add them. The answer is 5.", "5"),
        ("The final answer is $\\frac{1}{2}$.", "$\\frac{1}{2}$"),
        ("First the answer is 4. No, the answer is 5.", "5"),
        ("So we get\n#### 12", "12"),
        ("12", "12"),
        ("We have $x = 3$, and therefore $y = 4$", "$y = 4$"),
        ("We have $x = 3$. Therefore, there are 12 ways.", "12"),
        ("One takes 3 of them,\nthen takes 5", "5"),
        ("The share is $50$%\nas we saw", "$50$\\%"),
    ],
)
def test_without_a_box_the_last_statement_decides(response: str, answer: str) -> None:
    assert stated(response).text == answer


@pytest.mark.parametrize(
    "sentence",
    ["there may be 12 ways", "there are 12 or 13 ways", "there are not 12 ways", "there are 12 million ways"],
)
def test_a_conclusion_that_claims_nothing_or_more_than_its_number_does_not_decide(sentence: str) -> None:
    assert stated(f"We have $x = 3$. Therefore, {sentence}.").text == "$x = 3$"


def test_a_response_without_any_number_or_formula_states_nothing() -> None:
    assert stated("I do not know\nwhat to say").text is None
