"""The HTTP contract of POST /v1/score: what is asked, what is answered, and what the documentation page says of both."""

import re
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


class ScoreRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    items: list[ScoreItem]


class ScoreResult(msgspec.Struct, frozen=True):
    """`reward` is 1 for correct, 0 for incorrect and null otherwise: an error is never a zero reward."""

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


def read_request(body: bytes | bytearray) -> ScoreRequest:
    """Raises MalformedRequest with the path of the fault."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as fault:
        found = _PATH.match(str(fault))
        raise MalformedRequest(*(found.groups() if found else (str(fault), "$"))) from fault
    except (msgspec.DecodeError, RecursionError) as fault:
        raise MalformedRequest(f"the body is not JSON: {fault}", "$") from fault


def openapi_parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """The operation and the schemas it refers to, in OpenAPI's terms."""
    types = (ScoreRequest, ScoreResponse, Refusal)
    (request, response, refusal), schemas = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    refusals = {
        "413": "More bytes or items than the service takes in one request",
        "422": "A malformed request; `path` says where",
        "503": "Saturated; come back after the seconds in Retry-After",
    }
    operation = {
        "requestBody": {"required": True, "content": _json(request)},
        "responses": {
            "200": {"description": "Results in the order of the items", "content": _json(response)},
            **{status: {"description": text, "content": _json(refusal)} for status, text in refusals.items()},
        },
    }
    return operation, schemas


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
