import socket

import pytest

from services.errors import InputError
from verifier.http.listening import listen, reachable_url


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("scorer", "http://scorer:1")]
)
def test_the_url_is_one_that_can_be_reached(host: str, url: str) -> None:
    assert reachable_url(host, 1) == url


def test_a_socket_listens_without_delaying_small_answers() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with socket.create_connection(listener.getsockname()[:2], timeout=5):
            pass
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}.*verifier\.port"):
            listen("127.0.0.1", port)
