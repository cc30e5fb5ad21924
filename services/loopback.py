"""Which hosts are this machine alone."""

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Whether this host, a name or an address without brackets, is this machine and cannot be reached from another."""
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"
