"""A reference that says nothing is an error for every grader that compares with one."""

from typing import Any

import pytest

from services.graders import graders
from verifier.grader import ScoringFault, build_grader, load_grader
from verifier.graders.blank import is_blank

COMPARE_WITH_NOTHING = {"combine", "environment", "format", "remote"}
"""combine asks its parts, environment and format read no reference, and only the service behind remote knows what its are."""


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0", "\u200b", "\ufeff", "\u3000"])
def test_what_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}0")


@pytest.mark.parametrize("name", sorted(graders().keys() - COMPARE_WITH_NOTHING))
@pytest.mark.parametrize("reference", ["", " ", "\n", "\u200b", [], {}])
def test_a_blank_reference_is_a_fault_of_the_dataset(name: str, reference: Any) -> None:
    grader = build_grader(load_grader(graders()[name]), {})
    with pytest.raises(ScoringFault, match="reference"):
        grader.check(reference)


@pytest.mark.parametrize("reference", [r"\text{}", r"\mbox{ }", r"\quad", "$$", "{}", "."])
@pytest.mark.parametrize("name", ["math", "number"])
def test_latex_without_anything_in_it_is_blank_too(name: str, reference: str) -> None:
    with pytest.raises(ScoringFault, match="reference"):
        build_grader(load_grader(graders()[name]), {}).check(reference)
