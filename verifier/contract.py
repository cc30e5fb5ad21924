"""The HTTP contract of POST /v1/score: what is asked, what is answered, and what the documentation page says of both."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from services.wire.score import Verdict

_PATH = re.compile(r"^(.*) - at `(\$[^`]*)`$", re.DOTALL)


class ScoreItem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One response to judge."""

    id: str
    """Comes back with the result; any string."""
    grader: str
    response: str
    reference: Any
    """What the grader compares with: any JSON value that it understands."""
    options: dict[str, Any] = {}
    """Options of the grader; one that it does not know makes the verdict `error`."""
    response_tokens: int | None = None
    """Length of the response in the policy's tokens; only overlong shaping needs it."""


class ScoreRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: list[ScoreItem]


class ScoreResult(msgspec.Struct, frozen=True):
    """`reward` is a number for correct and incorrect, mostly 1 and 0, and null otherwise: an error is never a zero reward."""

    id: str
    verdict: Verdict
    reward: float | None
    detail: str
    elapsed_s: float


class ScoreResponse(msgspec.Struct, frozen=True):
    """One result for each item, in the order of the request."""

    results: list[ScoreResult]


class Refusal(msgspec.Struct, frozen=True):
    """Why a request was not scored."""

    error: str
    path: str
    """Place of the fault in the request, for example $.items[3].grader; $ is all of it."""


class MalformedRequest(Exception):
    def __init__(self, error: str, path: str) -> None:
        super().__init__(f"{error} at {path}")
        self.refusal = Refusal(error, path)


_decoder = msgspec.json.Decoder(ScoreRequest)


def read_request(body: bytes | bytearray, max_depth: int) -> ScoreRequest:
    """Raises MalformedRequest with the path of the fault."""
    try:
        request = _decoder.decode(body)
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


def is_deeper(value: Any, depth: int) -> bool:
    """Whether objects and arrays lie more than `depth` deep within each other."""
    level = [value]
    for _ in range(depth + 1):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in children(outer)]
        if not level:
            return False
    return True


def children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    """What is in it, and at least something while it is there at all: an empty array is as deep as a full one."""
    return (value.values() if isinstance(value, dict) else value) or [None]


EXAMPLES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one response": (
        {"items": [{"id": "a", "grader": "exact", "response": " 42 ", "reference": "42"}]},
        {"results": [{"id": "a", "verdict": "correct", "reward": 1.0, "detail": "", "elapsed_s": 0.0}]},
    ),
    "two, one of which cannot be judged": (
        {
            "items": [
                {"id": "a", "grader": "math", "response": "So it is \\boxed{\\frac12}.", "reference": "0.5"},
                {"id": "b", "grader": "exact", "response": "4", "reference": "4", "options": {"fuzzy": True}},
            ]
        },
        {
            "results": [
                {"id": "a", "verdict": "correct", "reward": 1.0, "detail": "", "elapsed_s": 0.01},
                {
                    "id": "b",
                    "verdict": "error",
                    "reward": None,
                    "detail": "unknown options fuzzy; this grader knows strip, case_sensitive, pattern",
                    "elapsed_s": 0.0,
                },
            ]
        },
    ),
}
"""Shown on the documentation page: requests, and what is answered but for the times."""


def openapi_parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """The operation and the schemas it refers to, in OpenAPI's terms."""
    types = (ScoreRequest, ScoreResponse, Refusal)
    (request, response, refusal), schemas = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    refusals = {
        "401": "The service wants a bearer token, and this request has none of its tokens",
        "413": "More bytes or items than the service takes in one request",
        "422": "A malformed request; `path` says where",
        "503": "Saturated; come back after the seconds in Retry-After",
    }
    asked = {name: {"value": example} for name, (example, _) in EXAMPLES.items()}
    answered = {name: {"value": example} for name, (_, example) in EXAMPLES.items()}
    operation = {
        "requestBody": {"required": True, "content": _json(request, asked)},
        "responses": {
            "200": {"description": "Results in the order of the items", "content": _json(response, answered)},
            **{status: {"description": text, "content": _json(refusal)} for status, text in refusals.items()},
        },
    }
    return operation, schemas


def _json(schema: dict[str, Any], examples: Mapping[str, Any] = {}) -> dict[str, Any]:
    return {"application/json": {"schema": schema, **({"examples": examples} if examples else {})}}
