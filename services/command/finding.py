"""What `ratchet doctor` says of one thing that it looked at."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    subject: str
    ok: bool
    seen: str
    action: str = ""
    """What to do about it; empty if ok."""
