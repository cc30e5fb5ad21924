"""The address that the service listens on, and the URL under which this machine reaches it."""

import socket

from services.errors import InputError

BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. port: 0 for any free one. Raises InputError naming the address and what to do."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server((str(address[0]), port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as fault:
        raise InputError(
            f"the verifier cannot listen on {host}:{port}: {fault}. Set verifier.host to an address of this machine and "
            "verifier.port to one that is free, or to 0 for any"
        ) from fault
    # asyncio does this only for sockets made with an explicit protocol; without it an answer waits 40 ms for an
    # acknowledgement of its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def reachable_url(host: str, port: int, scheme: str = "http") -> str:
    """The service's URL for this machine: one that listens on all addresses is reached on the loopback address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
