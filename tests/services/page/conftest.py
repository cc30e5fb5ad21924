"""A page without a browser."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from services.page.access import token_of
from services.page.app import create_app
from services.page.watch import Watch
from services.run.folder import RunFolder
from tests.services.page.written import write_run


@dataclass
class Page:
    """One run and a client that has not entered yet."""

    folder: RunFolder
    name: str
    watch: Watch
    token: str
    client: TestClient

    def enter(self) -> TestClient:
        """With the cookie of somebody who has the token."""
        assert self.client.get("/", params={"token": self.token}).status_code == 200
        return self.client


@pytest.fixture
def page(tmp_path: Path, redis_url: str) -> Iterator[Page]:
    name = f"page-{uuid.uuid4().hex[:8]}"
    folder = write_run(tmp_path, name=name, redis_url=redis_url)
    watch = Watch(folder)
    token = token_of(folder.page_token)
    with TestClient(create_app(watch, token), base_url="http://127.0.0.1:8000") as client:
        yield Page(folder, name, watch, token, client)
    watch.close()
