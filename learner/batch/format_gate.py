"""Whether responses have the form that learner.shaping.format asks for.

Responses are written by a model and patterns by a user: together they may take a regular expression exponential time. So
each match has a deadline, and a response that meets it keeps its reward: what could not be judged costs nothing.
"""

import logging
import math
from collections.abc import Sequence
from functools import lru_cache

import regex  # type: ignore[import-untyped]

from services.config.shaping import FormatGate

log = logging.getLogger("ratchet.learner")

MATCH_S = 0.25
"""Longest time for one pattern and one response."""


def capped_at(gates: Sequence[FormatGate], text: str) -> float:
    """The most that a response with this text may earn: the lowest `reward` of the forms that it lacks, or infinity."""
    return min((gate.reward for gate in gates if not _fits(gate, text)), default=math.inf)


def _fits(gate: FormatGate, text: str) -> bool:
    compiled = _compiled(gate.pattern)
    try:
        found = (
            compiled.search(text, timeout=MATCH_S)
            if gate.match == "search"
            else compiled.fullmatch(text.strip(), timeout=MATCH_S)
        )
    except TimeoutError:
        log.warning(
            "learner.shaping.format: the pattern %r took more than %g s on a response of %d characters, which keeps its "
            "reward; write it so that it matches in one way only",
            gate.pattern,
            MATCH_S,
            len(text),
        )
        return True
    return found is not None


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> "regex.Pattern[str]":
    return regex.compile(pattern, regex.DOTALL)
