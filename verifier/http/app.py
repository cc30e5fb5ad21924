"""The HTTP scoring service: batches in, verdicts out, and a queue that refuses rather than grows."""

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.config.verifier import VerifierConfig
from services.wire.score import Score
from verifier import metrics
from verifier.contract import (
    MalformedRequest,
    Refusal,
    ScoreItem,
    ScoreResponse,
    ScoreResult,
    openapi_parts,
    read_request,
)
from verifier.grading import Grading
from verifier.registry import Catalogue

DRAINED_BODIES = 4  # of a body that is too large, so much is read and thrown away before the connection is closed

LOGGED_CHARACTERS = 200

_encoder = msgspec.json.Encoder()
log = logging.getLogger("ratchet.verifier.requests")


def create_app(settings: VerifierConfig, grading: Grading) -> FastAPI:
    operation, schemas = openapi_parts()
    app = FastAPI(title="Ratchet verifier", summary="Scores responses. An error is never a zero reward.", version="1")
    most_items = min(settings.max_batch_items, settings.max_queued_items)  # more would be refused on an empty queue too

    @app.post("/v1/score", openapi_extra=operation, summary="Judge a batch of responses", response_class=Response)
    async def score(request: Request) -> Response:
        """Each item gets a verdict of its own: one that cannot be judged does not harm the others."""
        body = await read_body(request, settings.max_body_bytes)
        if body is None:
            fault = f"the body is larger than verifier.max_body_bytes = {settings.max_body_bytes}; send smaller batches"
            return refuse(413, fault, headers={"Connection": "close"})  # the rest of the body may still be coming
        try:
            items = read_request(body, settings.max_depth).items
            require_known_graders(items, grading.catalogue)
        except MalformedRequest as malformed:
            return refuse(422, malformed.refusal.error, malformed.refusal.path)
        if len(items) > most_items:
            fault = f"{len(items)} items are more than the {most_items} of one request; send smaller batches"
            return refuse(413, fault, "$.items")
        if grading.queued_items + len(items) > settings.max_queued_items:
            fault = (
                f"{grading.queued_items} items are queued and verifier.max_queued_items = {settings.max_queued_items}"
            )
            return refuse(503, fault, headers={"Retry-After": str(math.ceil(grading.pool.drain_s))})
        scores = await grading.score(items, request.state.caller)
        request.state.tally.update({"items": len(items), **Counter(str(score.verdict) for score in scores)})
        if settings.log_responses:
            log_unjudged(request.state.request_id, items, scores)
        results = [
            ScoreResult(item.id, score.verdict, score.reward, score.detail, score.elapsed_s)
            for item, score in zip(items, scores, strict=True)
        ]
        return Response(_encoder.encode(ScoreResponse(results)), media_type="application/json")

    @app.get("/v1/graders", summary="Which graders there are, and their options", response_class=Response)
    async def graders() -> Response:
        """Options as JSON schema. A grader with a `fault` cannot be used, and says why."""
        entries = sorted(grading.catalogue.values(), key=lambda entry: entry.name)
        return Response(_encoder.encode({"graders": entries}), media_type="application/json")

    @app.get("/healthz", summary="Alive", response_class=PlainTextResponse)
    async def healthz() -> Response:
        return Response("alive\n", media_type="text/plain")

    @app.get("/readyz", summary="A grader process is up", response_class=PlainTextResponse)
    async def readyz() -> Response:
        if grading.pool.ready:
            return Response("ready\n", media_type="text/plain")
        return Response("no grader process is up; the log says why\n", 503, media_type="text/plain")

    @app.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def metrics_page() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    described = app.openapi

    def openapi() -> dict[str, Any]:
        page = described()
        page.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        return page

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def log_unjudged(request_id: str, items: Sequence[ScoreItem], scores: Sequence[Score]) -> None:
    for item, score in zip(items, scores, strict=True):
        if score.reward is None:
            line = {"request_id": request_id, "id": item.id, "grader": item.grader, "detail": score.detail}
            log.warning(json.dumps({**line, "response": item.response[:LOGGED_CHARACTERS]}))


def require_known_graders(items: list[ScoreItem], catalogue: Catalogue) -> None:
    for index, item in enumerate(items):
        if item.grader not in catalogue:
            known = ", ".join(sorted(catalogue))
            raise MalformedRequest(f'unknown grader "{item.grader}"; known: {known}', f"$.items[{index}].grader")


async def read_body(request: Request, limit_bytes: int) -> bytearray | None:
    """None: it is larger, by its own account or in fact. Never holds more than the limit.

    Some of what is too much is read all the same: a client whose connection closes while it writes sees a broken pipe
    and not the answer that says why.
    """
    body, received = bytearray(), 0
    too_large = int(request.headers.get("content-length", 0)) > limit_bytes
    async for part in request.stream():
        received += len(part)
        too_large = too_large or received > limit_bytes
        if not too_large:
            body += part
        elif received > DRAINED_BODIES * limit_bytes:
            break
    return None if too_large else body


def refuse(status: int, error: str, path: str = "$", *, headers: Mapping[str, str] | None = None) -> Response:
    metrics.REQUESTS_REFUSED.labels(str(status)).inc()
    return Response(_encoder.encode(Refusal(error, path)), status, headers, media_type="application/json")
