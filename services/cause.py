"""Why a service ended, left in a file for the supervisor that started it.

An exit code says little and may be lost on the way: torchrun makes 1 of every code of its ranks. The ranks of one service
share the file; the first error stays, unless a later one is of the kind that ends in the same way every time.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import tempfile
from pathlib import Path

import msgspec

from services.errors import DiskFull, InputError, RatchetError, Retry

CAUSE_VARIABLE = "RATCHET_CAUSE_FILE"
"""Holds the path of the file, in the environment of a supervised service."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What libraries in Rust and C++ say, which have no errno: safetensors, and torch of a checkpoint's parts.
_FULL_IN_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "PytorchStreamWriter failed writing file",
    "unexpected pos ",  # torch again, where a write fell short: "unexpected pos 768 vs 662"
)
_ROOM_BYTES = 16384
_MESSAGE_CHARACTERS = 2000  # at most six bytes each in JSON
_VARIABLE = re.compile(r"0x[0-9a-f]+|\d+")


class Cause(msgspec.Struct, frozen=True):
    """The error that ended a service."""

    message: str
    retry: Retry
    is_input: bool
    """Whether what the user gave is wrong, which is exit code 2."""

    def repeats(self, earlier: "Cause | None") -> bool:
        """Whether it is the same error again. Numbers may differ: times, ports, process ids."""
        return earlier is not None and _VARIABLE.sub("#", self.message) == _VARIABLE.sub("#", earlier.message)


def make_room(path: Path) -> None:
    """Called by the supervisor before each start. The room is taken now, because the disk may be full when it is needed."""
    path.write_bytes(b" " * _ROOM_BYTES)


def leave(error: Exception) -> None:
    """Write what ended this service, if a supervisor has made room for it."""
    path = Path(os.environ.get(CAUSE_VARIABLE, ""))
    if not path.is_file():
        return
    is_ours = isinstance(error, RatchetError)
    retry: Retry = error.retry if isinstance(error, RatchetError) else "once"
    message = str(error) if is_ours else f"{type(error).__name__}: {error}"
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of the ranks that share it
        left = _decoded(file.read())
        if left is not None and (left.retry == "never" or retry != "never"):
            return
        cause = Cause(message[:_MESSAGE_CHARACTERS], retry, isinstance(error, InputError))
        file.seek(0)
        file.write(msgspec.json.encode(cause).ljust(_ROOM_BYTES))


def found(path: Path) -> Cause | None:
    """What a service has left; None: nothing, as when it was killed."""
    return _decoded(path.read_bytes()) if path.is_file() else None


class Faults:
    """Faults of one service in a row, for what restarts it by its exit code alone, in a file that outlives the process."""

    def __init__(self, service: str) -> None:
        """service: the name of the room. The file is that of this host, under the folder of caches (XDG_CACHE_HOME), which is a
        volume where the root of a container is read-only, or in the temporary folder."""
        folder = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()) / f"ratchet-faults-{os.getuid()}"
        self._path = folder / f"{service}-{socket.gethostname()}"

    def count(self, error: Exception) -> int:
        """How often in a row the service has ended by this error, this time included. Where nothing can be written it is 1."""
        now = Cause(str(error)[:_MESSAGE_CHARACTERS], "once", is_input=False)
        times = 1
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                times, before = msgspec.json.decode(self._path.read_bytes(), type=tuple[int, Cause])
                times = times + 1 if now.repeats(before) else 1
            self._path.write_bytes(msgspec.json.encode((times, now)))
        return times

    def forget(self) -> None:
        """The service works: what ended it before did not come of what it was given."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _decoded(written: bytes) -> Cause | None:
    try:
        return msgspec.json.decode(written, type=Cause)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def disk_full(error: BaseException) -> DiskFull | None:
    """The error to raise instead when this one, or one that it came from, says that a disk is full; else None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DiskFull):
            return seen
        full = isinstance(seen, OSError) and seen.errno in _FULL
        if full or any(words in str(seen) for words in _FULL_IN_WORDS):
            place = seen.filename if isinstance(seen, OSError) and seen.filename else None
            return DiskFull(
                f"no space is left on the disk{f' that holds {place}' if place else ''} ({seen}); free some, and call the same "
                "command again: it resumes from the last whole checkpoint"
            )
        seen = seen.__cause__ or seen.__context__
    return None
