"""What each grader is, as a process of its own finds out."""

import asyncio
from pathlib import Path

import pytest

from services.graders import OURS
from tests.verifier.running import registry
from verifier.registry import catalogue, describe


def test_every_grader_of_ours_can_be_used_and_describes_its_options() -> None:
    entries = asyncio.run(catalogue(OURS))
    assert {name: entry.fault for name, entry in entries.items()} == dict.fromkeys(OURS, "")
    for entry in entries.values():
        assert entry.summary
        grader = entry.options["$defs"][entry.options["$ref"].rpartition("/")[2]]
        without_default = {name for name, option in grader["properties"].items() if "default" not in option}
        assert without_default == ({"parts"} if entry.name == "combine" else set())


def test_a_grader_that_cannot_be_imported_says_why_and_the_others_are_there() -> None:
    entries = registry()
    assert "ModuleNotFoundError" in entries["missing"].fault
    assert "importing it ends the process" in entries["fatal_import"].fault
    assert entries["exact"].fault == entries["math"].fault == ""


def test_a_class_that_is_not_a_grader_is_a_fault_that_says_what_to_write() -> None:
    fault = describe("odd", "verifier.contract:ScoreItem").fault
    assert fault.startswith(
        "TypeError: verifier.contract:ScoreItem is not a subclass of verifier.grader.Grader: write "
    )


def test_a_grader_that_prints_while_it_is_imported_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noisy.py").write_text('print("hello")\nfrom verifier.graders.exact import ExactMatch as Noisy\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = asyncio.run(catalogue({"noisy": "noisy:Noisy", "exact": OURS["exact"]}))
    assert entries["noisy"].fault == ""
    assert entries["exact"].fault == ""
