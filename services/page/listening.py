"""Where the page listens, and the address to open in a browser."""

import socket

from services.errors import InputError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises InputError when that address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as fault:
        raise InputError(
            f"the page cannot listen on {host}:{port}: {fault.strerror}; choose another --host or --port"
        ) from None


def address(listener: socket.socket, token: str, shown: str | None = None) -> str:
    """What to open in a browser, token included. shown: how browsers reach it; None: where it listens."""
    if shown is not None:
        return f"{shown.rstrip('/')}/?token={token}"
    host, port = listener.getsockname()[:2]
    named = f"[{host}]" if ":" in host else host
    return f"http://{named}:{port}/?token={token}"
