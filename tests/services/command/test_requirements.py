import importlib.metadata

import pytest

from services.command.requirements import Unmet, declared, of_this_environment, python_environment, unmet


def nothing(package: str) -> str | None:
    """The version of a package where none is installed."""
    return None


def only_b(package: str) -> str | None:
    return "1" if package == "b" else None


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Pretended packages and what they ask for; no others are installed."""
    pretended: dict[str, list[str]] = {}

    def requires(package: str) -> list[str]:
        if package not in pretended:
            raise importlib.metadata.PackageNotFoundError(package)
        return pretended[package]

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    return pretended


def test_this_environment_has_what_its_packages_ask_for() -> None:
    assert of_this_environment("cpu") == []


def test_a_missing_package_and_a_wrong_version_are_found_however_deep(packages: dict[str, list[str]]) -> None:
    packages |= {"a": ["b>=1"], "b": ["c<2", "d"]}
    there = {"b": "1.0", "c": "2.1"}
    assert unmet(["a"], there.get) == [Unmet("b", "c<2", "2.1"), Unmet("b", "d", None)]
    assert [str(one) for one in unmet(["a"], there.get)] == [
        "b asks for c<2, and has 2.1",
        "b asks for d, which is missing",
    ]
    assert unmet(["a"], there.get, left_out=["D"]) == [Unmet("b", "c<2", "2.1")]


def test_an_extra_counts_when_it_is_asked_for(packages: dict[str, list[str]]) -> None:
    packages |= {"a": ["b[fast]"], "b": ['c; extra == "fast"', 'd; extra == "slow"']}
    assert unmet(["a"], only_b) == [Unmet("b", "c", None)]
    assert unmet(["b"], nothing) == []
    assert unmet(["b[slow]"], nothing) == [Unmet("b", "d", None)]


def test_markers_are_those_of_the_python_that_is_asked_about(packages: dict[str, list[str]]) -> None:
    packages |= {"a": ['b; python_full_version < "3.11.3"']}
    assert unmet(["a"], nothing, environment=python_environment("3.11.2")) == [Unmet("a", "b", None)]
    assert unmet(["a"], nothing, environment=python_environment("3.11.3")) == []


def test_a_local_label_says_nothing_about_the_version(packages: dict[str, list[str]]) -> None:
    packages |= {"a": ["torch==2.13.0+cpu"]}
    assert unmet(["a"], {"torch": "2.13.0"}.get) == []
    assert unmet(["a"], {"torch": "2.13.0+cpu"}.get) == []
    assert unmet(["a"], {"torch": "2.14.0+cpu"}.get) == [Unmet("a", "torch==2.13.0+cpu", "2.14.0+cpu")]


def test_packages_that_ask_for_each_other_are_looked_at_once(packages: dict[str, list[str]]) -> None:
    packages |= {"a": ["b"], "b": ["a"]}
    assert unmet(["a"], {"a": "1", "b": "1"}.get) == []


def test_a_package_that_is_not_installed_asks_for_nothing() -> None:
    assert declared("a-package-that-nobody-has") == []
