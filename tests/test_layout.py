"""The rules of the house: who imports whom, and what stays out of light processes."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("services", "learner", "rollout", "verifier")
FOUNDATION = ("errors", "loopback", "clock", "numbers", "threads", "graders", "environments", "metrics", "health")
"""Modules of services that every wing of it may import."""
WINGS = {
    "services": ("config", "wire", "streams", "weights", "models", "plan", "datasets", "run", "page", "command"),
    "learner": ("objective", "batch", "engine", "step", "control", "prompts", "intake", "publish", "tracking"),
    "rollout": ("weights", "vllm", "environments", "conversation"),
    "verifier": ("network", "sandbox", "graders", "pool", "lanes", "http", "worker", "offline"),
}
"""The packages of a room from the ground up: each imports only those before it, also by way of the room's own modules."""
MODULES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@cache
def imported(path: Path) -> list[str]:
    """Names of the modules that a file imports. Each file is read once: there are some six hundred, and a dozen rules."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names.append(node.module or "")
    return names


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


def within(room: str) -> dict[str, set[str]]:
    """Wing or module of the room -> the others of it that it imports."""
    edges: dict[str, set[str]] = {}
    for path in (ROOT / room).rglob("*.py"):
        place = path.relative_to(ROOT / room).parts[0].removesuffix(".py")
        mine = edges.setdefault(place, set())
        for name in imported(path):
            top, _, inside = name.partition(".")
            if top == room and inside and inside.split(".")[0] != place:
                mine.add(inside.split(".")[0])
    return edges


@pytest.mark.parametrize("room", WINGS)
def test_a_wing_imports_only_the_wings_below_it(room: str) -> None:
    order, edges = WINGS[room], within(room)
    packages = {path.parent.name for path in (ROOT / room).glob("*/__init__.py")}
    assert packages == set(order), f"say where {packages ^ set(order)} stands in the order of the wings of {room}"
    for wing in order:
        above = reached(wing, edges, packages) & set(order[order.index(wing) + 1 :])
        assert not above, f"{room}.{wing} imports {above}, which stands above it"


def reached(wing: str, edges: dict[str, set[str]], packages: set[str]) -> set[str]:
    """The wings that this one imports itself or through modules that stand in the room and in no wing."""
    found: set[str] = set()
    todo = [wing]
    while todo:
        new = edges.get(todo.pop(), set()) - found
        found |= new
        todo += new - packages
    return found & packages


def test_a_wing_above_is_found_behind_a_module_of_the_room() -> None:
    edges = {"low": {"module"}, "module": {"high"}, "high": set[str](), "other": {"high"}}
    assert reached("low", edges, {"low", "high", "other"}) == {"high"}
    assert reached("high", edges, {"low", "high", "other"}) == set()


@pytest.mark.parametrize("room", WINGS)
def test_no_circle_inside_a_room(room: str) -> None:
    left = within(room)
    while free := [place for place, needs in left.items() if not needs & left.keys()]:
        for place in free:
            del left[place]
    assert not left, f"these import each other: {left}"


GROUND_FLOOR = WINGS["services"][: WINGS["services"].index("page")]


@pytest.mark.parametrize("wing", GROUND_FLOOR)
def test_the_ground_floor_imports_nothing_but_the_ground_floor(wing: str) -> None:
    inside = sorted((ROOT / "services" / wing).rglob("*.py"))
    ours = {name for path in inside for name in imported(path) if name.split(".")[0] in ROOMS}
    allowed = {f"services.{name}" for name in (*FOUNDATION, *GROUND_FLOOR)}
    assert {name for name in ours if ".".join(name.split(".")[:2]) not in allowed} == set()


def test_the_command_line_is_imported_by_nothing() -> None:
    assert all(path.startswith("services/command/") for path in importers("services.command"))


def test_the_page_is_imported_by_the_command_line_alone() -> None:
    assert all(path.startswith(("services/page/", "services/command/")) for path in importers("services.page"))


def test_every_logger_is_below_the_one_that_is_set_to_info() -> None:
    """services/entry.py sets `ratchet` to INFO; what another logger says below WARNING is never printed."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Assign(value=ast.Call(func=ast.Attribute(attr="getLogger"), args=[name])):
                    assert isinstance(name, ast.Constant), f"{path}:{node.lineno}: name the logger"
                    assert str(name.value).split(".")[0] == "ratchet", f"{path}:{node.lineno}: {name.value!r}"


def test_one_wing_knows_vllm() -> None:
    """It has two halves, one at each end of what vLLM calls an engine; what is asked and answered, the two ways in which it
    runs, what is done to models, and what vLLM takes from us are files beside them."""
    names = ["engine", "launch", "own_process", "own_thread", "requests", "running", "second_model"]
    taken = ["cpu_norm", "histograms", "shared_prompts"]
    assert importers("vllm") == {f"rollout/vllm/{name}.py" for name in [*names, *taken]}


@pytest.mark.parametrize(
    ("package", "adapter"),
    [
        ("deepspeed", "learner/engine/deepspeed_setup.py"),
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
    "module",
    [
        "services.config.load",
        "services.wire.score",
        "services.command.cli",
        "services.command.plan",
        "services.command.up",
        "scripts.reference",
    ],
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
