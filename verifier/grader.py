"""What a grader is. It says right or wrong, with a reward; anything that it raises is an error, never a zero reward.

A grader is a frozen msgspec struct whose fields are its options:

    class Parity(msgspec.Struct, frozen=True):
        even: bool = True

        def check(self, reference: Any) -> None:
            ...

        def score(self, response: str, reference: Any) -> Judgement:
            ...

It lives in one module and has one line in services/graders.py, or an entry point in a package of its own. Three class
variables say how the service treats it; each has a default that fits most: `version`, `cached` and `lane`. One whose first
use takes far longer than the others, because a library builds its tables then, gets that over with in a class method
`warm_up()`, and grader processes to come have it done from the start. One that needs more of the machine than Python says
in a class method `unavailable()` what is missing, and runs are told before they start.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

Lane = Literal["process", "network", "parts"]
"""process: in a killable grader process. network: it waits for another service and runs in the event loop of ours.
parts: it asks other graders and makes one verdict of theirs."""


class Judgement(NamedTuple):
    correct: bool
    detail: str = ""
    """A few words for whoever inspects the group."""
    reward: float | None = None
    """None: 1 for correct and 0 for incorrect."""


class ScoringFault(Exception):
    """No verdict on the response is possible: the reference, the options or the grader are at fault."""


class Scorer(Protocol):
    """One grader with its options set; built once in a grader process and used for many responses."""

    def check(self, reference: Any) -> None:
        """Raises ScoringFault when nothing can be judged by this reference. Must take no longer than judging a response:
        when one has brought a grader process down, this is what tells whether the response or the reference did it."""

    def score(self, response: str, reference: Any) -> Judgement:
        """A response that is wrong or cannot be read is incorrect. A reference that cannot be read raises ScoringFault."""


def load_scorer_class(location: str) -> type[msgspec.Struct]:
    """location: module:class. Raises whatever the import raises, and TypeError for what is no grader."""
    module, _, name = location.partition(":")
    loaded = getattr(importlib.import_module(module), name)
    if not (isinstance(loaded, type) and issubclass(loaded, msgspec.Struct)):
        raise TypeError(f"{location} is no msgspec.Struct")
    needed = ("judge",) if lane_of(loaded) == "parts" else ("check", "score")
    if missing := [method for method in needed if not callable(getattr(loaded, method, None))]:
        raise TypeError(f"{location} has no method {' and no method '.join(missing)}")
    return loaded


def make_ready(location: str) -> type[msgspec.Struct]:
    """As load_scorer_class, and warmed up."""
    loaded = load_scorer_class(location)
    if (warm_up := getattr(loaded, "warm_up", None)) is not None:
        warm_up()
    return loaded


def version_of(scorer_class: type[msgspec.Struct]) -> str:
    """Part of the verdict cache's key. Raised whenever the same response may get another verdict."""
    return str(getattr(scorer_class, "version", "1"))


def is_cached(scorer_class: type[msgspec.Struct]) -> bool:
    """Whether judging costs far more than looking a verdict up, and always gives the same."""
    return bool(getattr(scorer_class, "cached", False))


def lane_of(scorer_class: type[msgspec.Struct]) -> Lane:
    lane: Lane = getattr(scorer_class, "lane", "process")
    return lane


def build_scorer(scorer_class: type[msgspec.Struct], options: Mapping[str, Any]) -> Any:
    """Raises ScoringFault, naming the options that the grader does not know or whose type is wrong."""
    known = scorer_class.__struct_fields__
    if unknown := sorted(options.keys() - set(known)):
        raise ScoringFault(f"unknown options {', '.join(unknown)}; this grader knows {', '.join(known) or 'none'}")
    try:
        return msgspec.convert(dict(options), scorer_class)
    except msgspec.ValidationError as fault:
        raise ScoringFault(f"options: {fault}") from fault
