import pytest

from verifier.grader import ScoringFault, build_grader
from verifier.graders.exact import ExactMatch


@pytest.mark.parametrize(
    ("options", "response", "reference", "correct"),
    [
        ({}, " 12\n", "12", True),
        ({}, "12", 12, True),
        ({}, "1.5", 1.5, True),
        ({}, "21", "12", False),
        ({}, "", "12", False),
        ({"strip": False}, " 12", "12", False),
        ({}, "Paris", "paris", False),
        ({"case_sensitive": False}, "PARIS", "paris", True),
        ({"pattern": r"answer: (\d+)"}, "answer: 7, no, answer: 12.", "12", True),
        ({"pattern": r"answer: (\d+)"}, "answer: 12, no, answer: 7.", "12", False),
        ({"pattern": r"answer: (\d+)"}, "I do not know", "12", False),
        ({"pattern": r"(\d+)|none"}, "none", "12", False),
    ],
)
def test_the_answer_is_compared_letter_for_letter(
    options: dict[str, object], response: str, reference: object, correct: bool
) -> None:
    assert build_grader(ExactMatch, options).score(response, reference).correct is correct


@pytest.mark.parametrize("reference", ["", " \n\t"])
def test_an_empty_reference_is_a_fault_for_every_response(reference: str) -> None:
    with pytest.raises(ScoringFault, match=r"reference .* is empty"):
        ExactMatch(strip=False).check(reference)
    with pytest.raises(ScoringFault, match=r"reference .* is empty"):
        ExactMatch().score("", reference)


@pytest.mark.parametrize("reference", [None, True, ["12"], {"answer": 12}])
def test_a_reference_that_is_no_text_is_a_fault_and_not_a_wrong_answer(reference: object) -> None:
    with pytest.raises(ScoringFault, match="reference must be a string or a number"):
        ExactMatch().score("12", reference)
    with pytest.raises(ScoringFault, match="reference must be a string or a number"):
        ExactMatch(pattern=r"answer: (\d+)").score("no answer at all", reference)
    with pytest.raises(ScoringFault, match="reference must be a string or a number"):
        ExactMatch().check(reference)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"lower": True, "trim": 1}, "unknown options lower, trim; this grader knows strip, case_sensitive, pattern"),
        ({"strip": "yes"}, r"Expected `bool`, got `str` - at `\$.strip`"),
        ({"pattern": "(unclosed"}, "is not a regular expression"),
        ({"pattern": r"\d+"}, "has 0 groups; it needs exactly one"),
        ({"pattern": "(a{99999999999})"}, "is not a regular expression"),
    ],
)
def test_wrong_options_are_faults_that_name_them(options: dict[str, object], names: str) -> None:
    with pytest.raises(ScoringFault, match=names):
        build_grader(ExactMatch, options)


def test_a_detail_shows_little_of_a_flood() -> None:
    assert len(ExactMatch().score("x" * 1_000_000, "y").detail) < 100
