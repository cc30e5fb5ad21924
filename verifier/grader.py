"""What a grader is: a frozen struct whose fields are its options, with the methods `check` and `score`.

It says right or wrong, with a reward; the thought before the answer has been taken off (verifier/answer.py). Anything that
it raises is an error, never a zero reward. How to add one, here or in a package of your own: docs/writing-a-grader.md. These
names are stable. A grader that asks another service is a verifier.network.grader.NetworkGrader instead.
"""

import importlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import msgspec

from verifier.answer import OnAnswer

LaneName = Literal["process", "network", "parts"]
"""Where a grader runs. process: in a killable grader process. network: in the service's event loop, because it waits for
another service. parts: it asks other graders and makes one verdict of theirs."""


class Judgment(NamedTuple):
    """What a grader says about one response."""

    correct: bool
    detail: str = ""
    """A few words for the person who inspects the group."""
    reward: float | None = None
    """None: 1 for correct and 0 for incorrect."""


class ScoringFault(Exception):
    """No verdict on the response is possible: the reference answer, the options or the grader are at fault."""


class BaseGrader(msgspec.Struct, frozen=True):
    """What graders of every lane have in common. Built once from its options and used for many responses."""

    lane: ClassVar[LaneName]
    version: ClassVar[str] = "1"
    """Part of the verdict cache's key: change it whenever the same response may get another verdict."""
    cached: ClassVar[bool] = False
    """Whether verdicts are kept: for graders that take far longer than a look-up and always say the same."""

    @classmethod
    def warm_up(cls) -> None:
        """Gets a slow first use over with, such as a library that builds its tables. Called once before grader processes
        are forked, so that they start with it done."""

    @classmethod
    def unavailable(cls) -> str:
        """What this machine lacks to run the grader; empty: nothing. Asked before a run starts."""
        return ""

    @abstractmethod
    def check(self, reference: Any) -> None:
        """Raises ScoringFault when no response can be judged by this reference answer. Must take no longer than judging a
        response: after a grader process has died, this tells whether the response or the reference answer did it."""


class Grader(BaseGrader, OnAnswer, frozen=True):
    """A grader that computes: it runs in a grader process, which is killed at its deadline."""

    lane: ClassVar[LaneName] = "process"

    @abstractmethod
    def score(self, response: str, reference: Any) -> Judgment:
        """Judges one response, of which it is given the answer. A response that is wrong or cannot be read is incorrect.
        Raises ScoringFault when the reference answer cannot be read."""


G = TypeVar("G", bound=BaseGrader)


def load_grader(location: str) -> type[BaseGrader]:
    """Imports a grader class.

    location: module:class. Raises whatever the import raises, and TypeError, with what to do, for what is not a grader.
    """
    module, _, name = location.partition(":")
    loaded = getattr(importlib.import_module(module), name)
    if not (isinstance(loaded, type) and issubclass(loaded, BaseGrader)):
        raise TypeError(
            f"{location} is not a subclass of verifier.grader.Grader: write `class {name}(Grader, frozen=True)`, "
            "as docs/writing-a-grader.md shows"
        )
    if missing := [method for method in dir(loaded) if _is_abstract(getattr(loaded, method, None))]:
        raise TypeError(f"{location} has no method {' and no method '.join(missing)}")
    return loaded


def build_grader(grader_class: type[G], options: Mapping[str, Any]) -> G:
    """The grader with its options set. Raises ScoringFault that names the options it does not know or that have a wrong
    type."""
    known = grader_class.__struct_fields__
    if unknown := sorted(options.keys() - set(known)):
        raise ScoringFault(f"unknown options {', '.join(unknown)}; this grader knows {', '.join(known) or 'none'}")
    try:
        return msgspec.convert(dict(options), grader_class)
    except msgspec.ValidationError as fault:
        raise ScoringFault(f"options: {fault}") from fault


def _is_abstract(member: object) -> bool:
    return getattr(member, "__isabstractmethod__", False)
