"""Whatever arrives at its port, the service answers with something other than a fault of its own, soon, and lives on.

Requests come from the service's own description, from its graders' option schemas, and as bytes that are hardly HTTP.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.verifier.service_under_test import Verifier, service

ANSWER_S = 15.0
"""Longest wait for an answer; takes milliseconds, and the machine may be busy."""
CLIENT = httpx.Client(verify=False, timeout=ANSWER_S)  # one for all: each would read the system's certificates
MAX_BODY_BYTES = 2**18
VERDICTS: dict[object, type] = {"correct": float, "incorrect": float, "error": type(None), "timeout": type(None)}
# The service is the same for all examples: what one leaves behind is part of what is tested.
FUZZING = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
LEFT_OUT = {"positive_data_acceptance"}  # the description does not say which graders there are
ITEM = {"id": "a", "grader": "exact", "response": "41", "reference": "41"}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    limits = {name: {"deadline_s": 2.0} for name in ("math", "code", "regex", "json")}
    with service({"processes": 1, "max_body_bytes": MAX_BODY_BYTES, "limits": limits}) as one:
        yield one


@pytest.fixture(autouse=True)
def _lives_on(verifier: Verifier) -> Iterator[None]:
    yield
    assert verifier.process.poll() is None
    (result,) = post(verifier, json.dumps({"items": [ITEM]}).encode()).json()["results"]
    assert result["verdict"] == "correct"


def test_requests_made_from_the_description_are_answered_as_described(verifier: Verifier) -> None:
    import schemathesis  # a second, for the process that runs this file alone
    from schemathesis.checks import CHECKS
    from schemathesis.generation import GenerationMode

    description = schemathesis.openapi.from_url(f"{verifier.url}/openapi.json")
    checks: list[Any] = [check for check in CHECKS.get_all() if check.__name__ not in LEFT_OUT]
    operations = [cast(Any, found).ok() for found in description.get_all_operations()]
    assert {operation.label for operation in operations} >= {"POST /v1/score", "GET /v1/graders", "GET /metrics"}
    for operation in operations:
        for mode in GenerationMode if operation.body else [GenerationMode.POSITIVE]:

            @settings(FUZZING, max_examples=40 if operation.body else 3)
            @given(case=operation.as_strategy(generation_mode=mode))
            def as_described(case: schemathesis.Case[Any]) -> None:
                case.call_and_validate(checks=checks, timeout=ANSWER_S)

            as_described()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
ANSWERS = st.text(max_size=200) | st.sampled_from(
    ["\\boxed{41}", "\\boxed{", "[1]", "print(41)", "The answer is B.", "<answer>"]
)
REFERENCES = JSON | st.sampled_from(
    [
        "41",
        "B",
        {"value": [1]},
        {"schema": {"type": "array"}},
        [{"type": "punctuation:no_comma"}],
        {"kind": "stdio", "tests": [{"stdin": "", "stdout": "41"}]},
    ]
)


@FUZZING
@given(drawn=st.data())
def test_a_grader_gives_a_verdict_whatever_its_reference_and_options_are(
    verifier: Verifier, drawn: st.DataObject
) -> None:
    grader = drawn.draw(st.sampled_from(graders(verifier)))
    names = st.sampled_from(sorted(options_of(grader))) if options_of(grader) else st.text(max_size=8)
    item = {
        "id": drawn.draw(st.text(max_size=20)),
        "grader": grader["name"],
        "response": drawn.draw(ANSWERS),
        "reference": drawn.draw(REFERENCES),
        "options": drawn.draw(st.dictionaries(names, JSON, max_size=3)),
    }
    (result,) = post(verifier, json.dumps({"items": [item]}).encode()).raise_for_status().json()["results"]
    assert result["id"] == item["id"]
    assert isinstance(result["reward"], VERDICTS[result["verdict"]])


LONG = b"9" * 5000
ODD_REQUESTS = {
    "an integer of 5,000 digits": (
        b'{"items": [{"id":"a","grader":"exact","response":"1","reference":%s}]}' % LONG,
        {200, 422},
    ),
    "an option of 5,000 digits": (
        b'{"items": [{"id":"a","grader":"math","response":"1","reference":"1","options":{"tolerance":%s}}]}' % LONG,
        {200, 422},
    ),
    "a huge exponent": (b'{"items": [{"id":"a","grader":"math","response":"1","reference":1e99999}]}', {200, 422}),
    "a number of tokens of 5,000 digits": (
        b'{"items": [{"id":"a","grader":"exact","response":"1","reference":"1","response_tokens":%s}]}' % LONG,
        {422},
    ),
    "arrays within arrays": (b"[" * 100_000, {422}),
    "a deep reference": (
        b'{"items": [{"id":"a","grader":"exact","response":"1","reference":%s}]}' % (b"[" * 60_000 + b"]" * 60_000),
        {422},
    ),
    "objects within objects": (b'{"items":' * 20_000 + b"1" + b"}" * 20_000, {422}),
    "a lone surrogate": (b'{"items": [{"id":"a","grader":"exact","response":"\\udc00","reference":"1"}]}', {422}),
    "a surrogate as a key": (b'{"\\ud800": 1}', {422}),
    "NaN": (b'{"items": [{"id":"a","grader":"exact","response":"1","reference":NaN}]}', {422}),
    "Infinity": (b'{"items": [{"id":"a","grader":"math","response":"1","reference":-Infinity}]}', {422}),
    "a key twice": (
        b'{"items": [], "items": [{"id":"a","id":"b","grader":"exact","response":"1","reference":"1"}]}',
        {200, 422},
    ),
    "no UTF-8": (b'{"items": [{"id":"a","grader":"exact","response":"\xff\xfe\xc0\x80","reference":"1"}]}', {422}),
    "UTF-16": ('{"items": []}'.encode("utf-16"), {422}),
    "a byte order mark": (b'\xef\xbb\xbf{"items": []}', {200, 422}),
    "NUL": (b"\0" * 1000, {422}),
    "nothing": (b"", {422}),
}


@pytest.mark.parametrize("name", ODD_REQUESTS)
def test_an_odd_body_is_judged_or_refused_with_its_place(verifier: Verifier, name: str) -> None:
    body, allowed = ODD_REQUESTS[name]
    response = post(verifier, body)
    assert response.status_code in allowed
    if response.status_code == 422:
        assert response.json()["path"].startswith("$")


@FUZZING
@given(drawn=st.data())
def test_a_damaged_request_is_judged_or_refused(verifier: Verifier, drawn: st.DataObject) -> None:
    body = bytearray(json.dumps({"items": [ITEM, {**ITEM, "options": {"strip": True}}]}).encode())
    for _ in range(drawn.draw(st.integers(1, 4))):
        at = drawn.draw(st.integers(0, len(body)))
        body[at : at + drawn.draw(st.integers(0, 10))] = drawn.draw(st.binary(max_size=10))
    assert post(verifier, bytes(body)).status_code in {200, 422}


@FUZZING
@given(body=st.binary(max_size=2000))
def test_bytes_that_are_no_request_are_refused(verifier: Verifier, body: bytes) -> None:
    assert post(verifier, body).status_code == 422


HEAD = b"POST /v1/score HTTP/1.1\r\nHost: x\r\n"
WHOLE = b'{"items": []}'
HARDLY_HTTP = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    "an unknown method": b"BREW /v1/score HTTP/1.1\r\nHost: x\r\n\r\n",
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an old version": b"POST /v1/score HTTP/0.9\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "a path that is none": b"GET \xff\xfe%zz/../..//\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long header": HEAD + b"X-Request-Id: " + b"a" * 200_000 + b"\r\n\r\n",
    "ten thousand headers": HEAD + b"X: y\r\n" * 10_000 + b"\r\n",
    "a header of odd bytes": HEAD
    + b"X-Request-Id: \xff\x00\x0b\r\nAuthorization: \xc3\x28\r\nContent-Length: 0\r\n\r\n",
    "a length that is not a number": HEAD + b"Content-Length: many\r\n\r\n" + WHOLE,
    "a length below 0": HEAD + b"Content-Length: -1\r\n\r\n" + WHOLE,
    "a length of 5,000 digits": HEAD + b"Content-Length: " + LONG + b"\r\n\r\n" + WHOLE,
    "a length in other digits": HEAD + "Content-Length: ٤١\r\n\r\n".encode() + WHOLE,
    "a length with underscores": HEAD + b"Content-Length: 1_3\r\n\r\n" + WHOLE,
    "two lengths": HEAD + b"Content-Length: 13\r\nContent-Length: 5\r\n\r\n" + WHOLE,
    "a length and chunks": HEAD
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n"
    + WHOLE
    + b"\r\n0\r\n\r\n",
    "less than its length": HEAD + b"Content-Length: 1000\r\n\r\n" + WHOLE,
    "more than its length": HEAD + b"Content-Length: 2\r\n\r\n" + WHOLE * 100,
    "chunks without end": HEAD + b"Transfer-Encoding: chunked\r\n\r\nd\r\n" + WHOLE + b"\r\n",
    "a chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + WHOLE + b"\r\n0\r\n\r\n",
    "a chunk of great size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n" + WHOLE,
    "a chunk of size below 0": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n" + WHOLE + b"\r\n0\r\n\r\n",
    "an unknown encoding": HEAD
    + b"Transfer-Encoding: gzip\r\nContent-Encoding: br\r\nContent-Length: 13\r\n\r\n"
    + WHOLE,
    "an upgrade": HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    "a hundred at once": (HEAD + b"Content-Length: 13\r\n\r\n" + WHOLE) * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("name", HARDLY_HTTP)
def test_what_is_hardly_http_is_answered_or_cut_off(verifier: Verifier, name: str) -> None:
    assert_no_fault(said_to(verifier, HARDLY_HTTP[name]))


@FUZZING
@given(start=st.sampled_from([b"", HEAD, HEAD + b"Transfer-Encoding: chunked\r\n\r\n"]), rest=st.binary(max_size=300))
def test_any_bytes_are_answered_or_cut_off(verifier: Verifier, start: bytes, rest: bytes) -> None:
    assert_no_fault(said_to(verifier, start + rest))


def test_a_client_that_leaves_in_the_middle_takes_nothing_with_it(verifier: Verifier) -> None:
    body = json.dumps({"items": [ITEM] * 500}).encode()
    for share in (0.1, 0.5, 1.0):
        with connection_to(verifier) as leaving:
            leaving.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[: int(share * len(body))])


def test_silent_clients_hold_up_no_other(verifier: Verifier) -> None:
    with contextlib.ExitStack() as silent:
        for number in range(200):
            connection = silent.enter_context(connection_to(verifier))
            connection.sendall(HEAD[: number % len(HEAD)])
        start_s = time.monotonic()
        assert post(verifier, WHOLE).json() == {"results": []}
        assert time.monotonic() - start_s < ANSWER_S / 2


def post(verifier: Verifier, body: bytes) -> httpx.Response:
    response = CLIENT.post(f"{verifier.url}/v1/score", content=body)
    assert response.status_code < 500
    return response


def graders(verifier: Verifier) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = CLIENT.get(f"{verifier.url}/v1/graders").json()["graders"]
    return found


def options_of(grader: dict[str, Any]) -> dict[str, Any]:
    schema = grader["options"]
    schema = schema["$defs"].get(schema.get("$ref", "").rpartition("/")[2], schema)
    found: dict[str, Any] = schema.get("properties", {})
    return found


def connection_to(verifier: Verifier) -> socket.socket:
    address = httpx.URL(verifier.url)
    return socket.create_connection((address.host, address.port or 0), ANSWER_S)


def said_to(verifier: Verifier, request: bytes) -> bytes:
    """All that the service says to it, until it closes the connection. Raises TimeoutError when it does not."""
    answer = bytearray()
    with connection_to(verifier) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(request)
        with contextlib.suppress(OSError):  # the service may have cut the request off by now
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(2**16):
            answer += part
    return bytes(answer)


def assert_no_fault(answer: bytes) -> None:
    assert b"HTTP/1.1 5" not in answer
    assert not answer or answer.startswith(b"HTTP/1.1 ")
