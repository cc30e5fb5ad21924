import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services import numa
from services.errors import InputError


@pytest.fixture
def without_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder where a copy would be looked for, on a machine where the linker finds none."""
    real = ctypes.CDLL

    def load(name: str) -> ctypes.CDLL:
        if name == numa.LIBRARY:
            raise OSError(f"{name}: cannot open shared object file")
        return real(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(numa, "own_copy", lambda: tmp_path / "native" / numa.LIBRARY)
    monkeypatch.delenv(numa.SEARCHED_VARIABLE, raising=False)
    (tmp_path / "native").mkdir()
    return tmp_path / "native"


def test_the_library_of_the_system_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(numa.SEARCHED_VARIABLE, raising=False)
    if numa.find() != numa.LIBRARY:
        pytest.skip("this system has no libnuma of its own")
    numa.provide()
    assert numa.SEARCHED_VARIABLE not in os.environ


def test_without_one_the_error_names_it_and_what_to_do(without_the_systems: Path) -> None:
    assert numa.find() is None
    with pytest.raises(InputError, match=r"needs libnuma\.so\.1.*apt-get install libnuma1"):
        numa.provide()
    assert numa.SEARCHED_VARIABLE not in os.environ


def test_a_copy_in_the_environment_is_found_by_the_processes_that_are_started(
    without_the_systems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = _some_library()
    shutil.copy(library, without_the_systems / numa.LIBRARY)
    monkeypatch.setenv(numa.SEARCHED_VARIABLE, "/elsewhere")
    numa.provide()
    numa.provide()
    assert os.environ[numa.SEARCHED_VARIABLE] == f"{without_the_systems}:/elsewhere"
    asked = f"import ctypes; ctypes.CDLL('{numa.LIBRARY}')"
    subprocess.run([sys.executable, "-c", asked], check=True, env=os.environ | {"LD_PRELOAD": ""})
    maps = subprocess.run(
        [sys.executable, "-c", asked + "; print(open('/proc/self/maps').read())"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert str(without_the_systems) in maps


def _some_library() -> Path:
    """A small shared library that every Python process has loaded."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        path = line.split()[-1]
        if path.startswith("/") and ".so" in path and "libffi" in path:
            return Path(path)
    pytest.skip("no libffi among what this process has loaded")
