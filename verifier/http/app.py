"""The HTTP scoring service: its routes put together, and its documentation page."""

from typing import Any

from fastapi import FastAPI

from services.config.verifier import VerifierConfig
from verifier.grading import Grading
from verifier.http.openapi import openapi_parts
from verifier.http.pages import add_pages
from verifier.http.running import add_running
from verifier.http.scoring import add_scoring


def create_app(settings: VerifierConfig, grading: Grading, *, run: str | None = None) -> FastAPI:
    """run: the name of the run that this service belongs to, a label of its metrics; None: it serves anyone."""
    operation, schemas = openapi_parts()
    app = FastAPI(title="Ratchet verifier", summary="Scores responses. An error is never a zero reward.", version="1")
    add_scoring(app, settings, grading, operation)
    add_running(app, settings)
    add_pages(app, grading, run)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        page = described()
        page.setdefault("components", {}).setdefault("schemas", {}).update(schemas)
        return page

    app.openapi = openapi  # type: ignore[method-assign]
    return app
