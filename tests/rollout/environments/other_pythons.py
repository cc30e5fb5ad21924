"""The Pythons in which packages are installed that need other versions of what we need: `make ecosystem` makes them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def python_of(name: str) -> str:
    """The interpreter with this package; the module that asks is skipped where there is none."""
    python = ROOT / ".venv" / name / "bin" / "python"
    if not (python.parents[1] / ".ready").exists():
        pytest.skip(f"{name} is not installed in .venv/{name}; `make ecosystem` does it", allow_module_level=True)
    return str(python)
