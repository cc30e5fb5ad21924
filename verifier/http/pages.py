"""What the service says about itself: its graders, its health and its metrics."""

import msgspec
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from services.exposition import metrics_page
from verifier.grading import Grading


def add_pages(app: FastAPI, grading: Grading, run: str | None) -> None:
    @app.get("/v1/graders", summary="Which graders there are, and their options", response_class=Response)
    async def graders() -> Response:
        """Options as JSON schema. A grader with a `fault` cannot be used; the fault says why."""
        entries = sorted(grading.catalogue.values(), key=lambda entry: entry.name)
        return Response(msgspec.json.encode({"graders": entries}), media_type="application/json")

    @app.get("/healthz", summary="Alive", response_class=PlainTextResponse)
    async def healthz() -> Response:
        return Response("alive\n", media_type="text/plain")

    @app.get("/readyz", summary="A grader process is up", response_class=PlainTextResponse)
    async def readyz() -> Response:
        if grading.pool.ready:
            return Response("ready\n", media_type="text/plain")
        return Response("no grader process is up; the log says why\n", 503, media_type="text/plain")

    @app.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(metrics_page(run), media_type=CONTENT_TYPE_LATEST)
