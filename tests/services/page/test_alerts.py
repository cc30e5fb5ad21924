"""The alerts of a Prometheus, as its API has them."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from services.errors import InputError
from services.page.__main__ import named, run_folder
from services.page.alerts import Alerts
from services.page.listening import address, listen

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


def test_a_page_may_be_there_before_its_run(tmp_path: Path) -> None:
    run = Path(__file__).parents[3] / "deploy" / "runs" / "addition-cpu.toml"
    found = run_folder(run, [f'runs_folder="{tmp_path}/runs"', 'name="later"'])
    assert found.path == (tmp_path / "runs" / "later").resolve()
    assert found.path.is_dir()
    assert run_folder(tmp_path).path == tmp_path
    with pytest.raises(InputError, match="--set overrides a setting of a run file"):
        run_folder(tmp_path, ["name=later"])
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be made: Not a directory"):
        run_folder(run, [f'runs_folder="{tmp_path}/file"'])


def test_the_address_that_is_printed_is_the_one_that_browsers_reach() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert address(listener, "t") == f"http://127.0.0.1:{listener.getsockname()[1]}/?token=t"
        assert address(listener, "t", "http://127.0.0.1:8123/") == "http://127.0.0.1:8123/?token=t"
