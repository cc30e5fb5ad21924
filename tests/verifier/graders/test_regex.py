import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.grader import ScoringFault, build_grader
from verifier.graders.regex import Regex


@pytest.mark.parametrize(
    ("options", "response", "reference", "correct"),
    [
        ({}, " 42\n", r"\d+", True),
        ({}, "42 apples", r"\d+", False),
        ({}, "", r"\d+", False),
        ({}, "yes\nno", "yes.no", False),
        ({}, "yes\nno", "(?s)yes.no", True),
        ({}, "YES", "yes", False),
        ({"case_sensitive": False}, "YES", "yes", True),
        ({"strip": False}, " 42", r"\d+", False),
        ({"match": "contains"}, "42 apples", r"\bapples?\b", True),
        ({"match": "contains"}, "42 pears", r"\bapples?\b", False),
        ({"match": "contains"}, "red and blue", "(?=.*blue)(?=.*red)", True),
        ({"match": "contains"}, "red", "(?=.*blue)(?=.*red)", False),
        ({"extract": r"answer: (\w+)"}, "answer: 7, no, answer: 12.", r"1\d", True),
        ({"extract": r"answer: (\w+)"}, "answer: 12, no, answer: 7.", r"1\d", False),
        ({"extract": r"answer: (\w+)"}, "12", r"1\d", False),
        ({"extract": r"(\d+)|none"}, "none", r"1\d", False),
        ({"extract": r"ANSWER: (\w+)", "case_sensitive": False}, "answer: x", "X", True),
        # A match that merely begins or ends right is no match of the whole.
        ({}, "cat or dog", "cat|dog", False),
        ({}, "dog", "cat|dog", True),
    ],
)
def test_the_answer_is_matched_by_the_reference(
    options: dict[str, object], response: str, reference: str, correct: bool
) -> None:
    assert build_grader(Regex, options).score(response, reference).correct is correct


@given(st.text(max_size=40), st.text(max_size=40))
def test_an_escaped_text_matches_itself_and_nothing_else(text: str, other: str) -> None:
    scorer, reference = Regex(strip=False), f"(?:{re.escape(text)})"
    assert scorer.score(text, reference).correct
    assert scorer.score(other, reference).correct is (other == text)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (None, "must be a regular expression, not NoneType None"),
        (12, "must be a regular expression, not int 12"),
        ("", "must be a regular expression, not str ''"),
        ("(unclosed", "is not a regular expression"),
        ("(" * 5000 + ")" * 5000, "is not a regular expression"),
        ("a{99999999999}", "is not a regular expression"),
    ],
)
def test_a_reference_that_is_no_pattern_is_a_fault(reference: object, says: str) -> None:
    scorer = Regex()
    with pytest.raises(ScoringFault, match=re.escape(says)):
        scorer.check(reference)
    with pytest.raises(ScoringFault, match=re.escape(says)):
        scorer.score("12", reference)


@pytest.mark.parametrize("reference", ["a*", "(yes)?", "(?!.*no)", "^", ".*"])
def test_a_pattern_that_every_response_contains_is_a_fault(reference: str) -> None:
    with pytest.raises(ScoringFault, match="every response would contain a match"):
        Regex(match="contains").check(reference)
    Regex().check(reference)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"extract": "(unclosed"}, "option extract .* is not a regular expression"),
        ({"extract": r"\d+"}, "has 0 groups; it needs exactly one"),
        ({"match": "start"}, "Invalid enum value 'start'"),
        ({"flags": "i"}, "unknown options flags"),
    ],
)
def test_wrong_options_are_faults_that_name_them(options: dict[str, object], says: str) -> None:
    with pytest.raises(ScoringFault, match=says):
        build_grader(Regex, options)


def test_a_detail_shows_little_of_a_flood() -> None:
    assert len(Regex().score("x" * 1_000_000, "y+").detail) < 100
