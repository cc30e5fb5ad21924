"""The pages answer, and a client that falls silent in the middle of a request is disconnected."""

import socket
import threading
import urllib.request
from urllib.parse import urlsplit

import pytest

from services import health
from services.health import HealthServer


def threads() -> int:
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def test_a_scrape_that_falls_silent_is_let_go_and_its_thread_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LONGEST_SILENCE_S", 0.3)
    server = HealthServer("127.0.0.1", 0, ready=lambda: True)
    before = threads()
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as half_open:
        half_open.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
        assert half_open.recv(1) == b""
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(10)
    assert threads() == before == 0
    with urllib.request.urlopen(f"{server.url}/healthz", timeout=10) as answer:
        assert answer.read() == b"alive\n"
    server.close()
