"""The contract of the scoring service, over real HTTP."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest

from tests.verifier.running import Running, running


@pytest.fixture(scope="module")
def verifier() -> Iterator[Running]:
    with running(max_body_bytes=10_000, max_batch_items=50) as one:
        yield one


def item(response: Any = "12", **fields: Any) -> dict[str, Any]:
    return {"id": "a", "grader": "exact", "response": response, "reference": "12"} | fields


def post(verifier: Running, *items: Any, **request: Any) -> httpx.Response:
    return httpx.post(f"{verifier.url}/v1/score", json={"items": items} | request, timeout=30)


def test_results_come_in_the_order_of_the_items(verifier: Running) -> None:
    items = [item(str(number), id=f"item-{number}", grader="exact" if number % 2 else "math") for number in range(50)]
    results = post(verifier, *items).raise_for_status().json()["results"]
    assert [result["id"] for result in results] == [one["id"] for one in items]
    assert [result["verdict"] == "correct" for result in results] == [number == 12 for number in range(50)]
    assert set(results[0]) == {"id", "verdict", "reward", "detail", "elapsed_s"}


def test_an_error_or_a_timeout_has_no_reward_and_harms_no_other(verifier: Running) -> None:
    items = [item(), item("raise", grader="odd"), item("sleep 9", grader="odd"), item("spin", grader="odd"), item("13")]
    results = post(verifier, *items).json()["results"]
    assert [result["verdict"] for result in results] == ["correct", "error", "timeout", "incorrect", "incorrect"]
    assert [result["reward"] for result in results] == [1.0, None, None, 0.0, 0.0]


def test_unknown_options_are_an_error_that_names_them(verifier: Running) -> None:
    (result,) = post(verifier, item(options={"fuzzy": True})).json()["results"]
    assert (result["verdict"], result["reward"]) == ("error", None)
    assert "unknown options fuzzy" in result["detail"]


def test_nothing_to_score_is_no_fault(verifier: Running) -> None:
    assert post(verifier).json() == {"results": []}


@pytest.mark.parametrize(
    ("items", "path", "says"),
    [
        ([item(), {"id": "b"}], "$.items[1]", "missing required field `grader`"),
        ([item(response=12)], "$.items[0].response", "Expected `str`, got `int`"),
        ([item(), item(), item(grader="maths")], "$.items[2].grader", 'unknown grader "maths"; known: combine, exact'),
        ([item(prompt="?")], "$.items[0]", "unknown field `prompt`"),
        ([item(options=[1])], "$.items[0].options", "Expected `object`, got `array`"),
        (["12"], "$.items[0]", "Expected `object`, got `str`"),
    ],
)
def test_a_malformed_request_is_told_where(verifier: Running, items: list[Any], path: str, says: str) -> None:
    response = post(verifier, *items)
    assert response.status_code == 422
    assert response.json()["path"] == path
    assert says in response.json()["error"]


def test_an_unknown_key_next_to_the_items_is_refused(verifier: Running) -> None:
    response = post(verifier, item(), model="x")
    assert (response.status_code, response.json()["path"]) == (422, "$")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"items": [', b"[" * 100_0, b'{"items": [{"id": "\\ud800"}]}'])
def test_a_body_that_is_not_json_is_refused(verifier: Running, body: bytes) -> None:
    response = httpx.post(f"{verifier.url}/v1/score", content=body)
    assert response.status_code == 422
    assert response.json()["path"].startswith("$")


def test_too_large_a_body_is_refused_by_its_own_account(verifier: Running) -> None:
    response = post(verifier, item("x" * 10_000))
    assert response.status_code == 413
    assert "verifier.max_body_bytes = 10000" in response.json()["error"]


def test_too_large_a_body_is_refused_also_when_it_does_not_say_how_large_it_is(verifier: Running) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 1000

    response = httpx.post(f"{verifier.url}/v1/score", content=body())
    assert "content-length" not in response.request.headers
    assert response.status_code == 413


def test_a_body_without_end_is_cut_off(verifier: Running) -> None:
    address = (httpx.URL(verifier.url).host, httpx.URL(verifier.url).port or 0)
    with socket.create_connection(address) as connection:
        connection.settimeout(10)
        head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head)
        with pytest.raises(OSError, match=r"reset|closed|[Bb]roken pipe"):
            connection.sendall((b"3e8\r\n" + b" " * 1000 + b"\r\n") * 20_000)


def test_too_many_items_are_refused(verifier: Running) -> None:
    response = post(verifier, *[item("")] * 51)
    assert response.status_code == 413
    assert response.json() == {
        "error": "51 items are more than the 50 of one request; send smaller batches",
        "path": "$.items",
    }


def test_many_clients_at_once_each_get_their_own(verifier: Running) -> None:
    def ask(client: int) -> list[str]:
        items = [item(str(number), id=f"{client}/{number}", reference=str(client)) for number in range(20)]
        return [result["verdict"] for result in post(verifier, *items).json()["results"]]

    with ThreadPoolExecutor(8) as clients:
        for client, found in enumerate(clients.map(ask, range(20))):
            assert found == ["correct" if number == client else "incorrect" for number in range(20)]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    with running(max_queued_items=10, item_deadline_s=2.0) as verifier:
        slow = threading.Thread(target=post, args=(verifier, *[item("sleep 0.2", grader="odd")] * 10))
        slow.start()
        time.sleep(0.3)
        response = post(verifier, *[item()] * 5)
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) >= 1
        assert "verifier.max_queued_items = 10" in response.json()["error"]
        slow.join()
        assert post(verifier, item()).status_code == 200


def test_health_pages(verifier: Running) -> None:
    assert httpx.get(f"{verifier.url}/healthz").text == "alive\n"
    assert httpx.get(f"{verifier.url}/readyz").text == "ready\n"


def test_metrics_count_verdicts_by_grader(verifier: Running) -> None:
    post(verifier, item(), item("raise", grader="odd"))
    page = httpx.get(f"{verifier.url}/metrics").text
    assert 'ratchet_verifier_scores_total{grader="exact",verdict="correct"}' in page
    assert 'ratchet_verifier_scores_total{grader="odd",verdict="error"}' in page
    for name in ("score_seconds_bucket", "queued_items", "pool_restarts_total", "groups_total"):
        assert f"ratchet_verifier_{name}" in page


def test_the_documentation_describes_the_contract(verifier: Running) -> None:
    page = httpx.get(f"{verifier.url}/openapi.json").json()
    operation = page["paths"]["/v1/score"]["post"]
    assert set(operation["responses"]) >= {"200", "413", "422", "503"}
    schemas = page["components"]["schemas"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ScoreRequest"
    }
    assert schemas["ScoreItem"]["required"] == ["id", "grader", "response", "reference"]
    assert schemas["ScoreResult"]["properties"]["verdict"] == {"enum": ["correct", "error", "incorrect", "timeout"]}
    assert "swagger" in httpx.get(f"{verifier.url}/docs").text


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/vnd.ratchet+json", 200),
        (None, 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("", 415),
    ],
)
def test_only_json_is_read(verifier: Running, kind: str | None, expected: int) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answered = httpx.post(
        f"{verifier.url}/v1/score", content=msgspec.json.encode({"items": [item()]}), headers=headers, timeout=30
    )
    assert answered.status_code == expected
    if expected == 415:
        assert "send Content-Type: application/json" in answered.json()["error"]
