"""Every grader has a name, and no two have the same."""

from importlib.metadata import EntryPoint

import pytest

from services import graders as module
from services.errors import InputError
from services.graders import ENTRY_POINTS, OURS, graders, known_graders


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    graders.cache_clear()


def installed(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setattr(module, "entry_points", lambda group: [EntryPoint(name, value, group)])
    monkeypatch.setattr(EntryPoint, "dist", None, raising=False)


def test_an_installed_package_brings_its_grader(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "roman", "ratchet_grader_roman:Roman")
    assert graders() == {**OURS, "roman": "ratchet_grader_roman:Roman"}
    assert '"roman"' in known_graders()
    graders.cache_clear()


def test_a_name_that_is_taken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "math", "elsewhere:Math")
    with pytest.raises(
        InputError, match=r'brings a grader "math" \(elsewhere:Math\), but that name is already that of'
    ):
        graders()
    graders.cache_clear()


def test_the_group_of_entry_points_is_the_one_that_the_page_names() -> None:
    assert ENTRY_POINTS == "ratchet.graders"
