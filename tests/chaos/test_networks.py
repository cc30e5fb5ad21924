"""The switch between namespaces carries, cuts and slows what goes from one host to another, and nothing else."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

import pytest

from services.clock import now_s
from tests.chaos.networks import Network, enter

CUT_S = 0.5
Made = TypeVar("Made")


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        made = Network(["a", "b", "c"])
    except OSError as fault:
        pytest.skip(f"this user may not make network namespaces: {fault}")
    with made:
        yield made


def test_packets_arrive_late_over_a_slow_link_and_not_over_a_cut_one(network: Network) -> None:
    at_a = _in(network, "a", lambda: socket.create_server(("", 0)))
    port = at_a.getsockname()[1]
    threading.Thread(target=_echo, args=(at_a,), daemon=True).start()

    def connect() -> socket.socket:
        return socket.create_connection((network.address("a"), port), 5)

    from_b, from_c = _in(network, "b", connect), _in(network, "c", connect)
    with at_a, from_b, from_c:
        assert _asked(from_b, 300_000) < CUT_S
        network.slow("a", "b", 0.1)
        assert _asked(from_b) >= 0.2  # there and back
        assert _asked(from_c) < 0.2
        network.mend("b", "a")
        network.cut("a", "b")
        threading.Timer(CUT_S, network.mend, ("a", "b")).start()
        assert _asked(from_b) >= CUT_S
        assert _asked(from_c) < CUT_S


def test_a_host_can_be_reached_through_its_listener(network: Network) -> None:
    port = network.listener("b").getsockname()[1]
    inside = _in(network, "b", lambda: socket.create_connection(("127.0.0.1", port), 5))
    accepted, _ = network.listener("b").accept()
    with inside, accepted:
        accepted.sendall(b"!")
        assert inside.recv(1) == b"!"
    with pytest.raises(OSError, match=r"refused|unreachable"):
        socket.create_connection(("127.0.0.1", port), 1)


def _in(network: Network, name: str, make: Callable[[], Made]) -> Made:
    """What this makes in the host's namespace."""
    made: Future[Made] = Future()

    def run() -> None:
        enter(network.namespace(name))
        made.set_result(make())

    threading.Thread(target=run).start()
    return made.result(10)


def _echo(listener: socket.socket) -> None:
    """Answer each message that ends with an exclamation mark with one."""

    def answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1 << 16):
                if data.endswith(b"!"):
                    connection.sendall(b"!")

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def _asked(connection: socket.socket, size: int = 0) -> float:
    """Seconds until a message of this many bytes is answered."""
    begun_s = now_s()
    connection.settimeout(10)
    connection.sendall(b"." * size + b"!")
    assert connection.recv(1) == b"!"
    return now_s() - begun_s
