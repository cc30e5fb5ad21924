import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier.linear import takes_linear_time
from verifier.grader import ScoringFault, build_grader
from verifier.graders.choice import ChoiceAnswer

COLOURS = {"choices": "ABCD", "texts": ["red", "green", "blue", "a shade of grey"]}


@pytest.mark.parametrize(
    "response",
    [
        "B",
        "(B)",
        "B.",
        "b",
        "B) because water boils at 100 degrees",
        "\\boxed{B}",
        "\\boxed{\\text{(B)}}",
        "\\boxed{\\textbf{(B)}\\ 12}",
        "I first thought of A. The answer is B.",
        "The answer is (B).",
        "The correct answer is: **B**",
        "Answer: B",
        "**Answer: (B)** since A and C contradict the text.",
        "Let us see. A is wrong, C too. So **B**.",
        "\\boxed{A}, no: \\boxed{B}",
        "The answer is A. No, wait. The answer is B.",
        "the answer would be option B",
        "I choose B",
        "The answer is B because it does not depend on the rest.",
        "\\boxed{B. None of the others}",
    ],
)
def test_the_letter_counts_wherever_it_is_stated_as_the_answer(response: str) -> None:
    judgment = ChoiceAnswer().score(response, "B")
    assert judgment.correct, judgment.detail


@pytest.mark.parametrize(
    "response",
    [
        "",
        "A",
        "I do not know.",
        "\\boxed{}",
        "B \\boxed{",
        "B, but in a box: \\boxed{C}",
        "\\boxed{A, B}",
        "\\boxed{B or C}",
        "\\boxed{ABCDE}",
        "\\boxed{BC}",
        "The answer is B or C.",
        "The answer is B and C.",
        "Answer: A/B",
        "The answer is not B.",
        "The answer is neither A nor B.",
        "The answer is F.",
        "**A** or **B** or **C**",
        "The answer is Because.",
        "Bananas are yellow.",
        "A B C D E",
        "\\boxed{(B)(C)}",
        "\\boxed{not B}",
        "\\boxed{\\neg B}",
        "\\boxed{\\cancel{B}}",
        "\\boxed{\\overline{B}}",
        "\\boxed{B^c}",
        "\\boxed{!B}",
        "The answer is certainly not B.",
        "The answer is anything but B",
        "The answer is unlikely to be B",
    ],
)
def test_another_letter_several_letters_and_none_are_incorrect(response: str) -> None:
    judgment = ChoiceAnswer().score(response, "B")
    assert not judgment.correct
    assert 0 < len(judgment.detail) < 120


@pytest.mark.parametrize(
    ("options", "response", "reference", "correct"),
    [
        ({"choices": "ABCDEFGHIJ"}, "The answer is H.", "H", True),
        ({"choices": "AB"}, "The answer is C.", "A", False),
        ({}, "Considering everything, I would go with B in the end", "B", False),
        ({"last_letter": True}, "Considering everything, I would go with B in the end", "B", True),
        ({"last_letter": True}, "B is tempting, but it must be D", "B", False),
        ({}, "The answer is B.", 1, True),
        ({}, "The answer is B.", 2, False),
        (COLOURS, "The answer is green.", "B", True),
        (COLOURS, "The answer is B.", "green", True),
        (COLOURS, "The answer is (B) green.", 1, True),
        (COLOURS, "The answer is (B) red.", 1, False),
        (COLOURS, "\\boxed{\\text{A shade of grey}}", "D", True),
        (COLOURS, "\\boxed{\\text{A shade of grey}}", "A", False),
        (COLOURS, "\\boxed{blue or green}", "blue", False),
    ],
)
def test_options_say_which_letters_and_texts_there_are(
    options: dict[str, object], response: str, reference: object, correct: bool
) -> None:
    assert build_grader(ChoiceAnswer, options).score(response, reference).correct is correct


@pytest.mark.parametrize(
    ("options", "reference"),
    [({}, "F"), ({}, ""), ({}, 5), ({}, -1), ({}, True), ({}, None), ({}, "AB"), (COLOURS, "pink"), (COLOURS, 4)],
)
def test_a_reference_that_is_no_choice_is_a_fault(options: dict[str, object], reference: object) -> None:
    with pytest.raises(ScoringFault, match="reference"):
        build_grader(ChoiceAnswer, options).check(reference)


def test_a_reference_text_that_two_choices_share_is_a_fault() -> None:
    with pytest.raises(ScoringFault, match="not one of the choices"):
        ChoiceAnswer(texts=("red", "red", "blue")).check("red")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"choices": ""}, "option choices"),
        ({"choices": "AA"}, "option choices"),
        ({"choices": "A1"}, "option choices"),
        ({"choices": "AB", "texts": ["x", "y", "z"]}, "3 texts for 2 letters"),
        ({"texts": ["x", " "]}, "an empty text"),
    ],
)
def test_wrong_options_are_faults_that_name_them(options: dict[str, object], names: str) -> None:
    with pytest.raises(ScoringFault, match=names):
        build_grader(ChoiceAnswer, options)


@given(st.text(alphabet="ABCDE ()*.,:\\boxed{}answer is", max_size=60))
def test_at_most_one_letter_is_correct_for_any_response(response: str) -> None:
    assert sum(ChoiceAnswer(last_letter=True).score(response, letter).correct for letter in "ABCDE") <= 1


@pytest.mark.parametrize(
    "flood",
    ["A" * 1_000_000, "A " * 500_000, "**A" * 300_000, "answer is " * 100_000, "\\boxed{" * 150_000, "(" * 1_000_000],
)
def test_a_flood_is_read_in_linear_time(flood: str) -> None:
    assert takes_linear_time(lambda text: ChoiceAnswer(last_letter=True).score(text, "B"), flood)
