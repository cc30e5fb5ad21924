import pytest
from ratchet_grader_roman import Roman, value

from verifier.grader import ScoringFault


@pytest.mark.parametrize(
    ("response", "correct"),
    [
        ("It is XIV.", True),
        ("First X, then XIV", True),
        ("XIV, or rather XV", False),
        ("xiv", False),
        ("XIIII", False),
        ("fourteen", False),
        ("", False),
    ],
)
def test_the_last_numeral_is_the_answer(response: str, correct: bool) -> None:
    assert Roman().score(response, 14).correct == correct


def test_options_make_it_lenient() -> None:
    assert Roman(lower_case=True).score("it is xiv", 14).correct
    assert Roman(well_formed=False).score("XIIII", 14).correct


@pytest.mark.parametrize("reference", ["14", 14.0, True, None, 0, 4000])
def test_a_reference_that_is_not_such_a_number_is_a_fault_for_every_response(reference: object) -> None:
    with pytest.raises(ScoringFault, match="1 to 3999"):
        Roman().check(reference)
    with pytest.raises(ScoringFault):
        Roman().score("XIV", reference)


@pytest.mark.parametrize("flood", ["M" * 1_000_000, "MDCLXVI " * 125_000, "M" * 1_000_000 + "Z", "x" * 1_000_000])
def test_a_flood_is_incorrect_and_its_detail_short(flood: str) -> None:
    judgment = Roman(lower_case=True).score(flood, 14)
    assert not judgment.correct
    assert len(judgment.detail) < 100


def test_numerals_are_read_as_in_antiquity() -> None:
    assert [value(numeral) for numeral in ("IV", "IX", "XL", "MCMXCIX", "MMXXVI")] == [4, 9, 40, 1999, 2026]
