"""What the service's documentation page says about POST /v1/score: schemas, examples and refusals, in OpenAPI's terms."""

from collections.abc import Mapping
from typing import Any

import msgspec

from verifier.contract import Refusal, ScoreRequest, ScoreResponse

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
                    "detail": "unknown options fuzzy; this grader knows strip, case_sensitive, pattern, thought",
                    "elapsed_s": 0.0,
                },
            ]
        },
    ),
}
"""Requests and their answers, which are exact except for the times."""


def openapi_parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """The operation, and the schemas that it refers to."""
    types = (ScoreRequest, ScoreResponse, Refusal)
    (request, response, refusal), schemas = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    refusals = {
        "401": "The service requires a bearer token, and this request has none of its tokens",
        "408": "The body took too long to come",
        "413": "More bytes or items than the service takes in one request",
        "415": "The body is of another content type than JSON",
        "422": "A malformed request; `path` says where",
        "431": "Too many headers, or too large ones",
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
