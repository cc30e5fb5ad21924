"""The routes of the page. Everything but the one POST reads; what a model wrote travels as JSON and is shown as text."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Response
from fastapi.responses import PlainTextResponse

from services.errors import RatchetError
from services.page.access import Guard
from services.page.groups import Filter, Groups
from services.page.watch import Watch

ASSETS = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "curves.js": "text/javascript; charset=utf-8",
    "inspector.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""Every file that is served, with its type. They are read at the start: no request becomes a path."""


def create_app(watch: Watch, token: str) -> FastAPI:
    """The page of one run for whoever has the token."""
    app = FastAPI(title="Ratchet page", openapi_url=None, docs_url=None, redoc_url=None)
    folder = Path(__file__).parent / "assets"
    contents = {name: (folder / name).read_bytes() for name in ASSETS}
    groups = Groups(watch.folder.groups)

    @app.get("/")
    async def index() -> Response:
        return Response(contents["index.html"], media_type=ASSETS["index.html"])

    @app.get("/assets/{name}")
    async def asset(name: str) -> Response:
        if name not in contents:
            return PlainTextResponse("There is no such file.\n", 404)
        return Response(contents[name], media_type=ASSETS[name])

    @app.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("alive\n")

    @app.get("/api/state")
    async def state(since: int = 0, revision: int = -1) -> Response:
        return _json(watch.state(since, revision))

    @app.get("/api/groups")
    def find(wanted: Annotated[Filter, Query()]) -> Response:
        return _json(groups.find(wanted))

    @app.get("/api/group")
    def one(step: int, group: str) -> Response:
        found = groups.one(step, group)
        if found is None:
            return PlainTextResponse(
                f"Group {group} of step {step} is not kept: only the newest are (learner.kept_groups_mib).\n", 404
            )
        return _json(found)

    @app.post("/api/requeue")
    def requeue(group: str) -> Response:
        try:
            config = watch.config()
            if config is None:
                return PlainTextResponse("The run has not written its settings yet.\n", 409)
            watch.dead.requeue(group, watch.connection(), config.name)
        except RatchetError as fault:
            return PlainTextResponse(f"{fault}\n", 409)
        return _json({"requeued": group})

    app.add_middleware(Guard, token=token)
    return app


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
