"""What Python 3.11.2, Debian 12's own, gets wrong in a regular expression is not in any of ours."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import verifier.graders

PARSER: Any = importlib.import_module("re._parser")


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(verifier.graders.__path__, "verifier.graders."):
        yield found.name


def looks_behind_within_a_possessive_repeat(parsed: Any, inside: bool = False) -> bool:
    for operation, argument in parsed:
        name = str(operation)
        if inside and name in ("ASSERT", "ASSERT_NOT") and argument[0] < 0:
            return True
        within = inside or name == "POSSESSIVE_REPEAT"
        parts = argument if isinstance(argument, tuple | list) else ()
        nested = [part for part in parts if isinstance(part, PARSER.SubPattern)]
        nested += [branch for part in parts if isinstance(part, list) for branch in part]
        if any(
            looks_behind_within_a_possessive_repeat(part, within) for part in nested if hasattr(part, "pattern") or part
        ):
            return True
    return False


def has_the_fault(pattern: str) -> bool:
    return looks_behind_within_a_possessive_repeat(PARSER.parse(pattern))


def test_the_fault_is_seen() -> None:
    assert has_the_fault(r"(?:a|(?<=x)b)++")
    assert not has_the_fault(r"(?:a|(?<=x)b)+")
    assert not has_the_fault(r"[a-z]++(?<=x)")


def test_no_possessive_repeat_holds_a_look_behind() -> None:
    """`(?:a|(?<=x)b)++` matches one a of aa there: it ends too early, and an answer is read as another one."""
    seen = 0
    for name in modules():
        for constant, value in vars(importlib.import_module(name)).items():
            if isinstance(value, re.Pattern):
                seen += 1
                assert not has_the_fault(value.pattern), f"{name}.{constant}"
    assert seen > 50
