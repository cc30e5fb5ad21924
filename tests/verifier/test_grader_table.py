import pytest

from services.errors import InputError
from services.graders import OURS
from verifier.grader_table import HEAD, table, with_table

EXACT = {"exact": OURS["exact"]}


def test_a_row_is_what_the_grader_says_about_itself() -> None:
    summary = "the response, or what a pattern finds in it, is the reference, letter for letter"
    assert table(EXACT) == HEAD + f"| `exact` | {summary} | `strip`, `case_sensitive`, `pattern`, `thought` |\n"


def test_the_table_of_a_page_is_replaced_and_the_rest_stays() -> None:
    page = f"# Graders\n\n{HEAD}| `old` | gone | |\n\nMore.\n"
    assert with_table(page, EXACT) == f"# Graders\n\n{table(EXACT)}\nMore.\n"
    assert with_table(with_table(page, EXACT), EXACT) == with_table(page, EXACT)


def test_a_page_without_a_table_and_a_grader_that_cannot_be_used_are_named() -> None:
    with pytest.raises(InputError, match="has no table of graders"):
        with_table("# Graders\n", EXACT)
    with pytest.raises(InputError, match="grader gone cannot be used: ModuleNotFoundError"):
        table({"gone": "nowhere:Nothing"})
