"""The names by which the command line knows the other rooms are names of modules."""

import importlib.util
import subprocess
import sys

import pytest

from services.command import rooms


@pytest.mark.parametrize("module", [rooms.ROLLOUT, rooms.VERIFIER, rooms.LEARNER, rooms.VERIFY, rooms.CHECK_REFERENCES])
def test_every_name_is_that_of_a_module_that_runs(module: str) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None
    if found.submodule_search_locations is not None:
        assert importlib.util.find_spec(f"{module}.__main__") is not None


def test_a_module_runs_with_this_python() -> None:
    said = subprocess.run(rooms.python_module("json.tool", "--help"), capture_output=True, text=True, check=True)
    assert "usage" in said.stdout
    assert rooms.python_module("m")[0] == sys.executable
