"""What a grader is. Two outcomes, right and wrong; anything that a grader raises is an error, never a zero reward.

A grader is a frozen msgspec struct whose fields are its options:

    class Parity(msgspec.Struct, frozen=True):
        even: bool = True

        def score(self, response: str, reference: Any) -> Judgement:
            ...

It lives in one module, imported only in the grader processes, and has one line in services/graders.py.
"""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec


class Judgement(NamedTuple):
    correct: bool
    detail: str = ""
    """A few words for whoever inspects the group."""


class ScoringFault(Exception):
    """No verdict on the response is possible: the reference, the options or the grader are at fault."""


class Scorer(Protocol):
    """One grader with its options set; built once in a grader process and used for many responses."""

    def score(self, response: str, reference: Any) -> Judgement:
        """A response that is wrong or cannot be read is incorrect. A reference that cannot be read raises ScoringFault."""


def load_scorer_class(location: str) -> type[msgspec.Struct]:
    """location: module:class."""
    module, _, name = location.partition(":")
    loaded: type[msgspec.Struct] = getattr(importlib.import_module(module), name)
    return loaded


def build_scorer(scorer_class: type[msgspec.Struct], options: Mapping[str, Any]) -> Scorer:
    """Raises ScoringFault, naming the options that the grader does not know or whose type is wrong."""
    known = scorer_class.__struct_fields__
    if unknown := sorted(options.keys() - set(known)):
        raise ScoringFault(f"unknown options {', '.join(unknown)}; this grader knows {', '.join(known) or 'none'}")
    try:
        scorer: Any = msgspec.convert(dict(options), scorer_class)
    except msgspec.ValidationError as fault:
        raise ScoringFault(f"options: {fault}") from fault
    return scorer  # type: ignore[no-any-return]
