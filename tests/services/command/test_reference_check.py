"""The graders themselves say which reference answers they cannot judge by."""

import sys

import pytest

from services.command import reference_check
from services.command.reference_check import Fault, Question, faults
from services.errors import InputError


def test_only_what_cannot_be_judged_is_a_fault() -> None:
    good = Question(place="prompts: row 1", grader="number", reference="42", options={})
    bad = Question(place="prompts: row 2", grader="number", reference="forty", options={})
    (fault,) = faults([good, bad])
    assert isinstance(fault, Fault)
    assert fault.place == "prompts: row 2"
    assert "forty" in fault.fault


def test_a_check_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_check, "DEADLINE_S", 0.01)
    with pytest.raises(InputError, match="checking 1 references took more than 0 s"):
        faults([Question(place="", grader="exact", reference="1", options={})])


def test_a_check_that_does_not_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        reference_check, "python_module", lambda _: [sys.executable, "-c", "raise SystemExit('no memory')"]
    )
    with pytest.raises(InputError, match="the references cannot be checked: no memory"):
        faults([])
