import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier.linear import takes_linear_time
from verifier.grader import ScoringFault, build_grader
from verifier.graders.number import NumberAnswer


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("12", 12),
        ("12", "12.0"),
        ("She has 3 left, then buys 9 more.\n#### 12", "12"),
        ("... #### 1,234\n", "1234"),
        ("so it costs $1,234.50 in all", "1234.5"),
        ("\\boxed{1{,}234}", 1234),
        ("\\boxed{\\$18}", 18),
        ("\\boxed{-5}", -5),
        ("\\boxed{−5}", -5),
        ("It drops by −5 degrees", "-5"),
        ("\\boxed{\\frac{3}{4}}", "0.75"),
        ("the answer is 3/4", 0.75),
        ("\\boxed{2\\frac{1}{2}}", "2.5"),
        ("2 1/2", 2.5),
        ("\\boxed{1.5 \\times 10^{3}}", 1500),
        ("1.5e3", "1500"),
        ("100000", "1e5"),
        ("\\boxed{50\\%}", 50),
        ("\\boxed{12 \\text{ apples}}", 12),
        ("\\boxed{3} and then \\boxed{4}", 4),
        ("**Answer:** 72 clips, 48 in April and 24 in May", 72),
        ("The answer is 12 - 5 = 7.", 7),
        ("The answer is 7. That is 2 more than 5.", 7),
        (".5", "1/2"),
        ("1,000 + 2,000 makes 3,000", 3000),
        ("pages 10-12", 12),
        ("\\boxed{x = 12}", 12),
        ("\\boxed{12cm}", 12),
        ("#### 12 dollars", 12),
    ],
)
def test_the_number_stated_last_is_compared_exactly(response: str, reference: object) -> None:
    judgment = NumberAnswer().score(response, reference)
    assert judgment.correct, judgment.detail


@pytest.mark.parametrize(
    ("response", "reference"),
    [
        ("", 12),
        ("I do not know", 0),
        ("13", 12),
        ("12", -12),
        ("0.333", "1/3"),
        ("0.3333333333333333", "1/3"),
        ("12.0000000000000000001", 12),
        ("\\boxed{}", 12),
        ("12 \\boxed{", 12),
        ("12 \\boxed{x}", 12),
        ("\\boxed{11, 12}", 12),
        ("\\boxed{11 or 12}", 12),
        ("#### 11 12", 12),
        ("\\boxed{6+6}", 6),
        ("\\boxed{\\sqrt{12}}", 12),
        ("\\boxed{2^{12}}", 12),
        ("\\boxed{1/0}", 0),
        ("\\boxed{12 \\text{ million}}", 12),
        ("12 thousand", 12),
        ("\\boxed{x12}", 12),
        ("12e99999", 12),
        ("the answer is 13, not 12 as one might think. 12", 12),
        ("1,23", 123),
        ("The answer is 11 or 12.", 11),
        ("The answer is 11 or 12.", 12),
        ("The answer is 12 million.", 12),
        ("The answer is not 12.", 12),
        ("The answer is at least 12", 12),
        ("The answer is minus 12", 12),
        ("The answer is 12k", 12),
        ("The answer is 12 squared", 12),
        ("The answer is 12 less than 13.", 12),
        ("#### 12 or thirteen", 12),
        ("\\boxed{12!}", 12),
        ("\\boxed{12x}", 12),
        ("\\boxed{12...}", 12),
        ("\\boxed{12²}", 12),
        ("\\boxed{12_8}", 12),
        ("\\boxed{not 12}", 12),
        ("\\boxed{half of 12}", 12),
        ("\\boxed{12\\%\\%}", 12),
        ("\\boxed{--0.75}", "-3/4"),
    ],
)
def test_any_other_number_and_no_number_are_incorrect(response: str, reference: object) -> None:
    judgment = NumberAnswer().score(response, reference)
    assert not judgment.correct
    assert 0 < len(judgment.detail) < 140


@pytest.mark.parametrize(
    ("options", "response", "reference", "correct"),
    [
        ({"tolerance": 0.01}, "0.333", "1/3", True),
        ({"tolerance": 0.0001}, "0.333", "1/3", False),
        ({"tolerance": 0.1, "tolerance_kind": "absolute"}, "12.1", 12, True),
        ({"tolerance": 0.1, "tolerance_kind": "absolute"}, "12.11", 12, False),
        ({"tolerance": 0.1}, "0.1", 0, False),
        ({"percent": "value"}, "50%", 0.5, True),
        ({"percent": "value"}, "50%", 50, False),
        ({"pattern": r"total: (\S+)"}, "total: 3, total: 12, mean: 6", 12, True),
        ({"pattern": r"total: (\S+)"}, "the sum is 12", 12, False),
    ],
)
def test_options_say_what_else_is_equal(
    options: dict[str, object], response: str, reference: object, correct: bool
) -> None:
    assert build_grader(NumberAnswer, options).score(response, reference).correct is correct


@pytest.mark.parametrize("reference", [None, True, [12], "twelve", "", "11 or 12", "1/0", "nan", float("inf"), "2^12"])
def test_a_reference_that_is_not_one_number_is_a_fault(reference: object) -> None:
    with pytest.raises(ScoringFault, match="reference"):
        NumberAnswer().check(reference)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"tolerance": -1.0}, "tolerance = -1.0"),
        ({"tolerance": float("nan")}, "tolerance = nan"),
        ({"pattern": "(unclosed"}, "not a regular expression"),
        ({"pattern": r"\d+"}, "has 0 groups"),
    ],
)
def test_wrong_options_are_faults_that_name_them(options: dict[str, object], names: str) -> None:
    with pytest.raises(ScoringFault, match=names):
        build_grader(NumberAnswer, options)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=4))
def test_every_way_of_writing_a_number_is_that_number_and_not_its_neighbour(number: object) -> None:
    for written in (
        f"{number:f}",
        f"{number:,f}",
        f"\\boxed{{{number:,f}}}",
        f"#### {number:f}",
        f"it is {number:,f} km.",
    ):
        assert NumberAnswer().score(written, f"{number:f}").correct, written
        assert not NumberAnswer().score(written, f"{number + 1:f}").correct  # type: ignore[operator]


@pytest.mark.parametrize(
    "flood",
    ["1" * 1_000_000, "1,111" * 200_000, "1 " * 500_000, "\\boxed{" * 150_000, "- $" * 300_000, "answer is " * 100_000],
)
def test_a_flood_is_read_in_linear_time(flood: str) -> None:
    assert not NumberAnswer().score(flood, 12).correct
    assert takes_linear_time(lambda text: NumberAnswer().score(text, 12), flood)
