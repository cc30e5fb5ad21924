"""Which hosts are this machine alone."""

import ipaddress
from urllib.parse import urlsplit


def is_loopback_url(url: str) -> bool:
    """Whether the URL's host is this machine. A URL that cannot be read is not: whoever asks it says what is wrong."""
    try:
        return is_loopback(urlsplit(url).hostname)
    except ValueError:
        return False


def is_loopback(host: str | None) -> bool:
    """Whether this host, a name or an address without brackets, is this machine and cannot be reached from another."""
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
