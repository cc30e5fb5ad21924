"""Metrics that more than one room sets, and the JSON lines in the run directory."""

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Gauge

from services.clock import now_s

WAIT_SECONDS = Counter(
    "ratchet_wait_seconds",
    "Time spent blocked, by room and by what was awaited. The largest share is the bottleneck.",
    ["room", "awaiting"],
)
STREAM_WAITING = Gauge("ratchet_stream_waiting_groups", "Groups on a stream that nobody has claimed yet.", ["stream"])
STREAM_PENDING = Gauge(
    "ratchet_stream_pending_groups", "Groups on a stream that are claimed and not handed over.", ["stream"]
)


@contextmanager
def waiting(room: str, awaiting: str) -> Iterator[None]:
    """Count the time inside as spent blocked on `awaiting`."""
    start = now_s()
    try:
        yield
    finally:
        WAIT_SECONDS.labels(room, awaiting).inc(now_s() - start)


class JsonLines:
    """An append-only file of JSON objects, one a line, each with its wall-clock time; readable while it grows."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if not _ends_with_a_line(path):  # a writer died there: its fragment must not swallow the next row
            self._file.write("\n")

    def write(self, **fields: Any) -> None:
        self._file.write(json.dumps({"at_unix_s": round(time.time(), 3), **fields}) + "\n")

    def close(self) -> None:
        self._file.close()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of such a file; none while it is not there yet."""
    return whole_rows(path.read_text(encoding="utf-8").split("\n")) if path.exists() else []


def whole_rows(lines: Iterable[str | bytes]) -> list[dict[str, Any]]:
    """Without the lines that a crash cut off."""
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
