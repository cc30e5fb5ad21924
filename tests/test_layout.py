"""The rules of the house: who imports whom, and what stays out of light processes."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("services", "learner", "rollout", "verifier")
MODULES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.module or ""


def importers(package: str, among: list[Path] = MODULES) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in among
        if any(name == package or name.startswith(package + ".") for name in imported(path))
    }


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_itself_and_the_ground_floor(room: str) -> None:
    inside = [path for path in MODULES if path.relative_to(ROOT).parts[0] == room]
    assert inside
    for other in set(ROOMS) - {room, "services"}:
        assert importers(other, inside) == set()


def test_one_wing_knows_vllm() -> None:
    """It has two halves, one in each of two processes."""
    assert importers("vllm") == {"rollout/vllm/engine.py", "rollout/vllm/worker.py"}


@pytest.mark.parametrize(
    ("package", "adapter"),
    [
        ("deepspeed", "learner/engine/deepspeed_engine.py"),
        ("redis", "services/streams/redis_connection.py"),
    ],
)
def test_one_file_knows_each_large_dependency(package: str, adapter: str) -> None:
    assert importers(package) == {adapter}


def test_torch_stays_in_the_weights_of_the_ground_floor() -> None:
    ground_floor = [path for path in MODULES if path.relative_to(ROOT).parts[0] == "services"]
    assert all(path.startswith("services/weights/") for path in importers("torch", ground_floor))


def test_nothing_is_pickled() -> None:
    assert importers("pickle") | importers("cloudpickle") | importers("dill") == set()


@pytest.mark.parametrize(
    "module", ["services.config.load", "services.wire.score", "services.command.cli", "services.command.up"]
)
def test_light_modules_start_without_torch(module: str) -> None:
    heavy = "torch", "vllm", "transformers", "deepspeed"
    program = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_every_package_says_what_it_is_for() -> None:
    for room in ROOMS:
        for package in (ROOT / room).rglob("__init__.py"):
            assert ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))), f"{package} has no docstring"
