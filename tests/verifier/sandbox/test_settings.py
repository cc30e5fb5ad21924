from pathlib import Path

import pytest

from services.config.sandbox import Bubblewrap, NoSandbox
from verifier.grader import ScoringFault
from verifier.sandbox.settings import for_environment, settings_from_environment


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RATCHET_SANDBOX", raising=False)


def test_without_the_variable_the_defaults_hold_and_they_are_a_sandbox() -> None:
    assert settings_from_environment() == Bubblewrap()


@pytest.mark.parametrize(
    "settings", [Bubblewrap(max_wall_s=3.0, python=Path("/usr/bin/python3")), NoSandbox(max_files=20), Bubblewrap()]
)
def test_settings_survive_the_environment(settings: Bubblewrap | NoSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in for_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert settings_from_environment() == settings


@pytest.mark.parametrize(
    "text", ["{", '"none"', '{"type": "off"}', '{"type": "none", "max_wall": 1}', '{"type": "none", "max_wall_s": "1"}']
)
def test_settings_that_cannot_be_read_are_a_fault_and_never_switch_the_sandbox_off(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_SANDBOX", text)
    with pytest.raises(ScoringFault, match="RATCHET_SANDBOX holds no settings"):
        settings_from_environment()


def test_the_python_of_a_virtual_environment_is_not_followed_to_where_it_links(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to("/usr/bin/env")
    assert Bubblewrap.model_validate({"python": str(tmp_path / "python")}).python == tmp_path / "python"
    assert Bubblewrap.model_validate({"python": "python"}, context={"folder": tmp_path}).python == tmp_path / "python"
