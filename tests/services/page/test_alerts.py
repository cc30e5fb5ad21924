"""The alerts of a Prometheus, as its API has them."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from services.errors import InputError
from services.page.__main__ import named
from services.page.alerts import Alerts

ANSWER = {
    "status": "success",
    "data": {
        "alerts": [
            {"labels": {"alertname": "LearnerStarved"}, "annotations": {"summary": "it waits"}, "state": "firing"},
            {"labels": {"alertname": "EssLow"}, "annotations": {}, "state": "pending"},
        ]
    },
}


class Prometheus(BaseHTTPRequestHandler):
    body = json.dumps(ANSWER).encode()

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/v1/alerts" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def prometheus() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Prometheus)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_alerts_come_with_their_state_and_what_they_say(prometheus: str) -> None:
    assert Alerts(f"{prometheus}/").look() == {
        "firing": [
            {"name": "LearnerStarved", "state": "firing", "said": "it waits"},
            {"name": "EssLow", "state": "pending", "said": ""},
        ],
        "fault": "",
    }


@pytest.mark.parametrize("body", [b"no json", b"[]", b'{"data": {"alerts": [{}]}}'])
def test_what_is_not_a_prometheus_is_said(prometheus: str, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prometheus, "body", body)
    assert f"{prometheus} gives no alerts: " in Alerts(prometheus).look()["fault"]
    assert "http://127.0.0.1:9 gives no alerts" in Alerts("http://127.0.0.1:9").look()["fault"]


def test_services_are_named() -> None:
    assert named(["learner=http://learner:9101/"]) == {"learner": "http://learner:9101"}
    for wrong in ("learner", "=http://a", "learner=ftp://a"):
        with pytest.raises(InputError, match="is not NAME=URL"):
            named([wrong])
