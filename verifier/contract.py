"""The contract of POST /v1/score: the question, the answer and the refusal, and how each is read.

ScoreItem is also what travels inside the verifier, up to the grader process. ScoreResult exists at this border alone: inside,
the answer is a Score. Imports nothing heavy: grader processes read items with it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Self

import msgspec

from services.wire.verdict import Score, Verdict

_PATH = re.compile(r"^(.*) - at `(\$[^`]*)`$", re.DOTALL)


class ScoreItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One response to judge."""

    id: str
    """Any string; it comes back with the result."""
    grader: str
    response: str
    reference: Any
    """The reference answer that the grader compares with: any JSON value that it understands."""
    options: dict[str, Any] = {}
    """Options of the grader. An unknown one makes the verdict `error`."""
    response_tokens: int | None = None
    """Length of the response in the policy's tokens. Only overlong shaping needs it."""


class ScoreRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: list[ScoreItem]


class ScoreResult(msgspec.Struct, frozen=True):
    """The score of one item. `reward` is a number for correct and incorrect, mostly 1 and 0, and null otherwise: an error is
    never a zero reward."""

    id: str
    verdict: Verdict
    reward: float | None
    detail: str
    elapsed_s: float

    @classmethod
    def of(cls, item: ScoreItem, score: Score) -> Self:
        return cls(item.id, score.verdict, score.reward, score.detail, score.elapsed_s)

    @property
    def score(self) -> Score:
        return Score(verdict=self.verdict, reward=self.reward, detail=self.detail, elapsed_s=self.elapsed_s)


class ScoreResponse(msgspec.Struct, frozen=True):
    """One result for each item, in the order of the request."""

    results: list[ScoreResult]


class Refusal(msgspec.Struct, frozen=True):
    """Why a request was not scored."""

    error: str
    path: str
    """Place of the fault in the request, for example $.items[3].grader; $ is all of it."""


class MalformedRequest(Exception):
    """A request that is refused with HTTP 422."""

    def __init__(self, error: str, path: str) -> None:
        super().__init__(f"{error} at {path}")
        self.refusal = Refusal(error, path)


_request_decoder = msgspec.json.Decoder(ScoreRequest)
_response_decoder = msgspec.json.Decoder(ScoreResponse)


def read_request(body: bytes | bytearray, max_depth: int) -> ScoreRequest:
    """The items to score. Raises MalformedRequest with the path of the fault."""
    try:
        request = _request_decoder.decode(body)
        for index, item in enumerate(request.items):
            for name, value in (("reference", item.reference), ("options", item.options)):
                if is_deeper(value, max_depth):
                    raise MalformedRequest(
                        f"more than {max_depth} objects and arrays within each other", f"$.items[{index}].{name}"
                    )
        return request
    except msgspec.ValidationError as fault:
        found = _PATH.match(str(fault))
        raise MalformedRequest(*(found.groups() if found else (str(fault), "$"))) from fault
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise MalformedRequest(f"the body is not JSON: {fault}", "$") from fault


def read_response(body: bytes, ids: Sequence[str]) -> list[Score]:
    """The scores for the items with these ids, in their order.

    Raises msgspec.MsgspecError when the body is not such an answer, or when an error claims a reward.
    """
    results = _response_decoder.decode(body).results
    if [result.id for result in results] != list(ids):
        raise msgspec.ValidationError(f"{len(results)} results for {len(ids)} items, or not in their order")
    for result in results:
        if (result.reward is not None) != (result.verdict in ("correct", "incorrect")):
            raise msgspec.ValidationError(f"verdict {result.verdict} with reward {result.reward}")
    return [result.score for result in results]


def is_deeper(value: Any, depth: int) -> bool:
    """Whether objects and arrays lie more than `depth` deep within each other."""
    level = [value]
    for _ in range(depth + 1):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in children(outer)]
        if not level:
            return False
    return True


def children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    """The values inside, and None for an empty one: an empty array is as deep as a full one."""
    return (value.values() if isinstance(value, dict) else value) or [None]
