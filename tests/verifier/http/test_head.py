"""Slow and oversized requests, on real sockets."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn.protocols.http.h11_impl
import uvicorn.protocols.http.httptools_impl

from tests.verifier.running import Running, running
from verifier.http import head

BODY = b'{"items": [{"id": "a", "grader": "exact", "response": "1", "reference": "1"}]}'
POST = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
WHOLE = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
DEADLINE_S = 1.0


@pytest.fixture(scope="module", params=["httptools", "h11"])
def verifier(request: pytest.FixtureRequest) -> Iterator[Running]:
    """With each of uvicorn's parsers; which one is used depends on what is installed."""
    found = {
        "httptools": uvicorn.protocols.http.httptools_impl.HttpToolsProtocol,
        "h11": uvicorn.protocols.http.h11_impl.H11Protocol,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "AutoHTTPProtocol", found[request.param])
        with running(read_deadline_s=DEADLINE_S, max_body_bytes=10_000) as one:
            yield one


@contextmanager
def connected(verifier: Running) -> Iterator[socket.socket]:
    url = httpx.URL(verifier.url)
    with socket.create_connection((url.host, url.port or 0)) as connection:
        connection.settimeout(10)
        yield connection


def answer(connection: socket.socket) -> bytes:
    """All that comes until the service closes the connection; a reset ends it too."""
    said = b""
    try:
        while part := connection.recv(65536):
            said += part
    except ConnectionResetError:
        pass  # an end as good as any
    return said


def status(said: bytes) -> bytes:
    return said.split(b" ")[1]


@pytest.mark.parametrize("beginning", [b"", POST + b"X-Slow: a"])
def test_a_head_that_does_not_come_is_cut_off(verifier: Running, beginning: bytes) -> None:
    with connected(verifier) as connection:
        connection.sendall(beginning)
        assert status(answer(connection)) == b"408"


def test_a_head_that_comes_byte_by_byte_is_cut_off(verifier: Running) -> None:
    start_s = time.monotonic()
    with connected(verifier) as connection:
        try:
            for byte in POST * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        except OSError:
            pass  # cut off, which the clock below tells
    assert DEADLINE_S <= time.monotonic() - start_s < 5


def test_the_next_head_on_a_connection_is_cut_off_too(verifier: Running) -> None:
    with connected(verifier) as connection:
        connection.sendall(WHOLE)
        assert status(connection.recv(65536)) == b"200"
        connection.sendall(b"POST /v1/sc")
        assert b"408" in answer(connection)


def test_a_slow_body_is_answered_and_cut_off(verifier: Running) -> None:
    with connected(verifier) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\n{")
        said = answer(connection)
    assert status(said) == b"408"
    assert b"the body took more than verifier.read_deadline_s = 1" in said


def test_a_request_in_time_is_answered_in_pieces_and_one_after_another(verifier: Running) -> None:
    with connected(verifier) as connection:
        for _ in range(3):
            for at in range(0, len(WHOLE), 20):
                connection.sendall(WHOLE[at : at + 20])
            said = b""
            while b'"verdict"' not in said:
                said += connection.recv(65536)
            assert status(said) == b"200"
            time.sleep(DEADLINE_S / 2)


@pytest.mark.parametrize(
    "headers",
    [b"X-Long: " + b"x" * 20_000, b"\r\n".join(b"X-%d: y" % number for number in range(200))],
    ids=["long", "many"],
)
def test_too_large_a_head_is_refused(verifier: Running, headers: bytes) -> None:
    with connected(verifier) as connection:
        connection.sendall(POST + headers + b"\r\nContent-Length: 2\r\n\r\n{}")
        assert status(answer(connection)) in (b"431", b"400")  # h11 has a bound of its own


def test_a_head_without_end_is_refused_long_before_its_deadline(verifier: Running) -> None:
    with connected(verifier) as connection:
        try:
            for number in range(20_000):  # more than the system takes without somebody reading
                connection.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000) if number else POST)
        except OSError:
            pass  # refused, which the number tells
        assert number < 19_000
