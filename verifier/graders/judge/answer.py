"""Reads what a judge said, to the letter: one whole JSON object, with the keys asked for and a value that is allowed.

A verdict is not searched for in a text: a judge that thinks aloud may quote the response, which may contain a verdict.
"""

import json
import re
from typing import Any

from verifier.answer import answer_of
from verifier.network.chat import Reply

_FENCED = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n```\Z", re.DOTALL)


class UnusableReply(Exception):
    """The judge's reply has no verdict in it. The message quotes nothing of what the judge wrote."""


def read_verdict(reply: Reply) -> tuple[bool, str]:
    """Whether correct, and the reason. Raises UnusableReply."""
    answer = _object(reply, "verdict")
    if answer["verdict"] not in ("correct", "incorrect"):
        raise UnusableReply("its verdict is neither correct nor incorrect")
    return answer["verdict"] == "correct", answer.get("reason", "")


def read_score(reply: Reply, low: float, high: float) -> tuple[float, str]:
    """The score on its scale, and the reason. Raises UnusableReply."""
    answer = _object(reply, "score")
    score = answer["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not low <= score <= high:
        raise UnusableReply(f"its score is not a number from {low:g} to {high:g}")
    return float(score), answer.get("reason", "")


def _object(reply: Reply, key: str) -> dict[str, Any]:
    if reply.cut:
        raise UnusableReply("its answer was cut at max_tokens")
    text = answer_of(reply.text).text.strip()
    if (fenced := _FENCED.match(text)) is not None:
        text = fenced[1]
    if not text:
        raise UnusableReply("it said nothing")
    try:
        answer = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        raise UnusableReply("its answer is not one JSON object") from None
    if not isinstance(answer, dict) or key not in answer or answer.keys() - {key, "reason"}:
        raise UnusableReply(f"its answer is not a JSON object with {key} and reason alone")
    if not isinstance(answer.get("reason", ""), str):
        raise UnusableReply("its reason is not a text")
    return answer


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found
