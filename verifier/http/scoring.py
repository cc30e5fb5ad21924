"""POST /v1/score: a batch in, a verdict for each item out, and a queue that refuses rather than grows."""

import asyncio
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from services.config.verifier import VerifierConfig
from services.log_lines import with_fields
from services.wire.verdict import Score
from verifier import metrics
from verifier.contract import MalformedRequest, Refusal, ScoreItem, ScoreResponse, ScoreResult, read_request
from verifier.grading import Grading
from verifier.http.body import read_body
from verifier.registry import Catalogue
from verifier.scores import without_verdict

LOGGED_CHARACTERS = 200

_encoder = msgspec.json.Encoder()
log = logging.getLogger("ratchet.verifier.requests")


def add_scoring(app: FastAPI, settings: VerifierConfig, grading: Grading, operation: dict[str, Any]) -> None:
    """operation: what the documentation page says of it."""

    @app.post("/v1/score", openapi_extra=operation, summary="Judge a batch of responses", response_class=Response)
    async def score(request: Request) -> Response:
        """Each item gets a verdict of its own: one that cannot be judged does not harm the others."""
        body = await read_json(request, settings)
        if isinstance(body, Response):
            return body
        try:
            items = read_request(body, settings.max_depth).items
            require_known_graders(items, grading.catalogue)
        except MalformedRequest as malformed:
            return refuse(422, malformed.refusal.error, malformed.refusal.path)
        if (refusal := refuse_load(settings, grading, len(items))) is not None:
            return refusal
        scores = await grading.score(items, request.state.caller)
        request.state.tally.update({"items": len(items), **Counter(str(score.verdict) for score in scores)})
        if settings.log_responses:
            log_without_verdict(request.state.request_id, items, scores)
        results = [ScoreResult.of(item, score) for item, score in zip(items, scores, strict=True)]
        return Response(_encoder.encode(ScoreResponse(results)), media_type="application/json")


async def read_json(request: Request, settings: VerifierConfig) -> bytearray | Response:
    """The body of a request that brings JSON; the refusal where it does not, or where the body is too large or too slow."""
    if (kind := request.headers.get("content-type")) is not None and not is_json(kind):
        advice = f"the content type is {kind[:80]!r}; send Content-Type: application/json"
        return refuse(415, advice, headers={"Connection": "close"})
    try:
        async with asyncio.timeout(settings.read_deadline_s):
            body = await read_body(request, settings.max_body_bytes)
    except TimeoutError:
        late = f"the body took more than verifier.read_deadline_s = {settings.read_deadline_s:g}"
        return refuse(408, late, headers={"Connection": "close"})
    if body is None:
        fault = f"the body is larger than verifier.max_body_bytes = {settings.max_body_bytes}; send less in one request"
        return refuse(413, fault, headers={"Connection": "close"})  # the rest of the body may still be coming
    return body


def is_json(content_type: str) -> bool:
    """Whether a Content-Type names JSON. Browsers send forms and plain text to any host unasked, but JSON only where they may."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def require_known_graders(items: Sequence[ScoreItem], catalogue: Catalogue) -> None:
    """Raises MalformedRequest."""
    for index, item in enumerate(items):
        if item.grader not in catalogue:
            known = ", ".join(sorted(catalogue))
            raise MalformedRequest(f'unknown grader "{item.grader}"; known: {known}', f"$.items[{index}].grader")


def refuse_load(settings: VerifierConfig, grading: Grading, items: int) -> Response | None:
    """The refusal of a batch that is too large, or that has to wait; None when it is accepted."""
    most = min(settings.max_batch_items, settings.max_queued_items)  # more would be refused on an empty queue too
    if items > most:
        return refuse(413, f"{items} items are more than the {most} of one request; send smaller batches", "$.items")
    queued = grading.queued_items
    if queued + items > settings.max_queued_items:
        fault = f"{queued} items are queued and verifier.max_queued_items = {settings.max_queued_items}"
        return refuse(503, fault, headers={"Retry-After": str(math.ceil(grading.pool.drain_s))})
    return None


def refuse(status: int, error: str, path: str = "$", *, headers: Mapping[str, str] | None = None) -> Response:
    metrics.REQUESTS_REFUSED.labels(str(status)).inc()
    return Response(_encoder.encode(Refusal(error, path)), status, headers, media_type="application/json")


def log_without_verdict(request_id: str, items: Sequence[ScoreItem], scores: Sequence[Score]) -> None:
    for index in without_verdict(scores):
        item = items[index]
        line = {
            "request_id": request_id,
            "id": item.id,
            "grader": item.grader,
            "detail": scores[index].detail,
            "response": item.response[:LOGGED_CHARACTERS],
        }
        what, why, begins = (json.dumps(line[name]) for name in ("id", "detail", "response"))  # each on one line
        log.info(
            "no verdict on %s by %s: %s; the response begins %s, request %s",
            *(what, item.grader, why, begins, request_id),
            extra=with_fields(**line),
        )
