"""Request ids, the right to ask, TLS and what the log says, over real sockets."""

import logging
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.errors import InputError
from services.verifier_access import TOKEN_VARIABLE, TOKENS_VARIABLE
from tests.verifier.running import Running, running
from tests.verifier.worker.test_loop import Wiring, group, verdicts

ADA, BOB = "ada-" + "0" * 20, "bob-" + "1" * 20
SECRET = "the response that must not be in a log"
LOGGER = "ratchet.verifier.requests"


def item(response: str = "12", **fields: Any) -> dict[str, Any]:
    return {"id": "a", "grader": "exact", "response": response, "reference": "12"} | fields


def post(verifier: Running, *items: dict[str, Any], **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{verifier.url}/v1/score", json={"items": items}, headers=named, timeout=30)


def lines(caplog: pytest.LogCaptureFixture, count: int = 0) -> list[dict[str, Any]]:
    """The log's lines about scoring, once there are this many. A line is written after the answer: the last one of another
    test, which looked at a page, may come in this one."""
    give_up_s = time.monotonic() + 10
    while True:
        written: list[dict[str, Any]] = [vars(record)["fields"] for record in caplog.records if record.name == LOGGER]
        found = [line for line in written if line.get("path", "/v1/score") == "/v1/score"]
        if len(found) >= count:
            return found
        assert time.monotonic() < give_up_s, found
        time.sleep(0.01)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Running]:
    with running(max_batch_items=3) as one:
        yield one


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKENS_VARIABLE, f"ada={ADA},bob={BOB}")
        with running(authentication="bearer", log_requests="all") as one:
            yield one


def test_a_request_id_comes_back(verifier: Running) -> None:
    assert post(verifier, item(), X_Request_Id="run-7.step_3").headers["X-Request-Id"] == "run-7.step_3"


@pytest.mark.parametrize("given", ["", "two words", "x" * 65, 'quote"', "newline\\n", "ü"])
def test_a_request_id_that_could_harm_a_log_is_replaced(verifier: Running, given: str) -> None:
    headers = [(b"x-request-id", given.encode())]
    response = httpx.get(f"{verifier.url}/healthz", headers=headers)
    assert response.headers["X-Request-Id"] != given
    assert len(response.headers["X-Request-Id"]) == 32


def test_requests_have_ids_of_their_own_also_when_they_are_refused(verifier: Running) -> None:
    answers = [
        post(verifier, item()),
        post(verifier),
        post(verifier, *[item()] * 4),
        httpx.get(f"{verifier.url}/nowhere"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 413, 404]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 4


def test_what_goes_well_leaves_nothing_in_the_log(verifier: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    post(verifier, item(), item("13"), X_Request_Id="well")
    post(verifier, item(reference=None), X_Request_Id="ill")
    assert [line["request_id"] for line in lines(caplog, 1)] == ["ill"]


def test_trouble_leaves_one_line_without_texts(verifier: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    post(verifier, item(), item(SECRET, reference=None), item(SECRET, options={"fuzzy": SECRET}), X_Request_Id="r1")
    post(verifier, item(SECRET, prompt=SECRET), X_Request_Id="r2")
    post(verifier, *[item(SECRET)] * 4, X_Request_Id="r3")
    scored, malformed, large = lines(caplog, 3)
    assert scored.pop("seconds") >= 0
    assert scored == {
        "request_id": "r1",
        "caller": "127.0.0.1",
        "method": "POST",
        "path": "/v1/score",
        "status": 200,
        "items": 3,
        "correct": 1,
        "error": 2,
    }
    assert (malformed["request_id"], malformed["status"]) == ("r2", 422)
    assert (large["request_id"], large["status"]) == ("r3", 413)
    assert SECRET not in caplog.text
    said = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert re.fullmatch(
        r"no verdict on 2 of 3 responses \(2 error, 1 correct\): POST /v1/score of 127\.0\.0\.1, \d\.\d{3} s, request r1",
        said[0],
    )
    assert said[1].startswith("status 422: POST /v1/score of 127.0.0.1, ")


def test_a_line_in_words_stays_one_line_whatever_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    with running(log_responses=True, log_requests="all") as verifier:
        httpx.get(f"{verifier.url}/a%0Ab", headers={"X-Request-Id": "r0"})
        post(verifier, item("a\nb", id="c\nd", reference=None), X_Request_Id="r1")
        lines(caplog, 2)
    said = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert any(line.startswith("status 404: GET /a%0Ab of 127.0.0.1, ") for line in said)
    assert any(line.startswith('no verdict on "c\\nd" by exact: ') and '"a\\nb"' in line for line in said)
    assert not any("\n" in line for line in said)


def test_texts_are_logged_only_where_the_operator_says_so_and_only_their_beginning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    with running(log_responses=True) as verifier:
        post(verifier, item("judged"), item(SECRET + "x" * 1000, reference=None), X_Request_Id="r1")
    unjudged = [line for line in lines(caplog) if "response" in line]
    assert [(line["request_id"], line["grader"]) for line in unjudged] == [("r1", "exact")]
    assert unjudged[0]["response"].startswith(SECRET)
    assert len(unjudged[0]["response"]) == 200
    assert "judged" not in [line["response"] for line in unjudged]


@pytest.mark.parametrize("header", [None, "Bearer wrong", f"Basic {ADA}", f"Bearer {ADA}0"])
@pytest.mark.parametrize("path", ["/v1/score", "/v1/graders", "/v1/nowhere"])
def test_without_a_token_nothing_below_v1_is_answered(guarded: Running, path: str, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    response = httpx.post(f"{guarded.url}{path}", content=b"{" * 100_000, headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json() == {"error": "send one of the service's tokens: Authorization: Bearer TOKEN", "path": "$"}


def test_no_spelling_of_the_path_goes_around_the_token(guarded: Running) -> None:
    for path in ("/v1/graders/", "//v1/graders", "/v1//graders", "/V1/graders", "/%761/graders", "/x/../v1/graders"):
        with httpx.Client(base_url=guarded.url) as client:
            request = client.build_request("GET", guarded.url)
            request.url = request.url.copy_with(raw_path=path.encode())
            assert client.send(request).status_code in (401, 404), path


def test_health_and_metrics_stay_open(guarded: Running) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert httpx.get(f"{guarded.url}{path}").status_code == 200


def test_the_log_names_the_caller_and_shows_no_token(guarded: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for token in (ADA, BOB, "wrong-token-of-somebody"):
        post(guarded, item(), Authorization=f"Bearer {token}")
    assert [(line["caller"], line["status"]) for line in lines(caplog, 3)] == [("ada", 200), ("bob", 200), ("", 401)]
    assert not any(token in caplog.text for token in (ADA, BOB, "wrong-token-of-somebody"))


def test_tokens_are_asked_for_and_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKENS_VARIABLE, raising=False)
    with pytest.raises(InputError, match=TOKENS_VARIABLE), running(authentication="bearer"):
        pass


def test_the_stream_worker_has_a_token_for_its_own_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKENS_VARIABLE, f"ada={ADA}")
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    wiring = Wiring()
    wiring.feed(group(1, "right", "wrong"))
    with running(wiring.streams, authentication="bearer"):
        scored, _ = wiring.settled(1)
    assert verdicts(scored["train-1"]) == ["correct", "incorrect"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For the name that others know the service by, and not for 127.0.0.1."""
    return self_signed(tmp_path_factory.mktemp("tls"), "DNS:scores.example")


def self_signed(folder: Path, name: str) -> dict[str, str]:
    files = {"tls_certificate": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
    named = ["-subj", "/CN=scores.example", "-addext", f"subjectAltName={name}"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", *kind, *named, "-keyout", files["tls_key"], "-out", files["tls_certificate"]]
    subprocess.run(command, check=True, capture_output=True)
    return files


def test_it_speaks_tls_and_nothing_else(certificate: dict[str, str]) -> None:
    trusted = ssl.create_default_context(cafile=certificate["tls_certificate"])
    with running(None, **certificate) as verifier:
        assert verifier.url.startswith("https://127.0.0.1:")
        # The name is checked as well: it is reached under the one in its certificate.
        named = {"headers": {"Host": "scores.example"}, "extensions": {"sni_hostname": "scores.example"}}
        with httpx.Client(verify=trusted) as client:
            answer = client.post(f"{verifier.url}/v1/score", json={"items": [item()]}, **named)  # type: ignore[arg-type]
            assert answer.json()["results"][0]["verdict"] == "correct"
        with httpx.Client(verify=trusted) as client, pytest.raises(httpx.ConnectError, match="not valid for '127"):
            client.get(f"{verifier.url}/healthz")
        with pytest.raises(httpx.ConnectError, match="self-signed"):
            httpx.get(f"{verifier.url}/healthz")
        with pytest.raises(httpx.TransportError):
            httpx.get(verifier.url.replace("https://", "http://") + "/healthz")


def test_the_stream_worker_reaches_its_own_service_over_tls(certificate: dict[str, str]) -> None:
    wiring = Wiring()
    wiring.feed(group(1, "right", "wrong"))
    with running(wiring.streams, **certificate):
        scored, _ = wiring.settled(1)
    assert verdicts(scored["train-1"]) == ["correct", "incorrect"]


def test_a_worker_elsewhere_checks_the_certificate_of_the_service(
    certificate: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    wiring = Wiring()
    wiring.feed(group(1, "right"))
    trusted = {"ca_certificate": certificate["tls_certificate"]}
    with (
        running(None, **certificate) as service,
        running(wiring.streams, url=service.url, **trusted),
        pytest.raises(AssertionError, match="0 of 1 groups settled"),
    ):
        wiring.settled(1, within_s=1.5)  # trusted, but not for this address: nothing is sent there
    assert "certificate verify failed" in caplog.text


def test_a_worker_elsewhere_is_served_over_tls(tmp_path: Path) -> None:
    certificate, wiring = self_signed(tmp_path, "IP:127.0.0.1"), Wiring()
    wiring.feed(group(1, "right", "wrong"))
    with (
        running(None, **certificate) as service,
        running(wiring.streams, url=service.url, ca_certificate=certificate["tls_certificate"]),
    ):
        scored, _ = wiring.settled(1)
    assert verdicts(scored["train-1"]) == ["correct", "incorrect"]


@pytest.mark.parametrize("broken", ["tls_certificate", "tls_key"])
def test_a_certificate_that_cannot_be_used_is_named_at_start(
    certificate: dict[str, str], broken: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.pem").write_text("no PEM")
    given = certificate | {broken: str(tmp_path / "broken.pem")}
    with pytest.raises(InputError, match=rf"verifier\.{broken} = \S*broken"), running(None, **given):
        pass
