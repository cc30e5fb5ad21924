"""The JSON lines of a run: appended row by row, readable while they grow and after a crash."""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from services.run.json_text import infinite, json_text, read_json

LAST_BYTES = 64 * 1024
"""What is read at first where only the last row is wanted."""


class JsonLines:
    """An append-only file of JSON objects, one per line, each with its wall-clock time; it can be read while it grows."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if _cut_off(path):
            self._file.write("\n")  # otherwise the first row of this start would be lost in it

    def write(self, **fields: Any) -> None:
        """Append a row. A number that is not finite becomes null; `infinite` says which of them were not nan, and nan is what
        was not measured, or what `skipped` names."""
        row = {"at_unix_s": round(time.time(), 3), **fields}
        if found := infinite(row):
            row["infinite"] = found
        self._file.write(json_text(row) + "\n")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of such a file; an empty list when it does not exist yet. What is null or was not finite is None."""
    return json_rows(path.read_bytes()) if path.exists() else []


def last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of such a file; None where it has none. It reads backwards from the end, no further than it has to."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        begin = end = file.seek(0, os.SEEK_END)
        while begin > 0:
            begin = max(0, end - max(LAST_BYTES, 2 * (end - begin)))
            file.seek(begin)
            if rows := json_rows(file.read(end - begin)):
                return rows[-1]
    return None


def json_rows(lines: bytes) -> list[dict[str, Any]]:
    """The rows in part of such a file; lines cut off by a crash are left out."""
    rows = []
    for line in lines.split(b"\n"):
        with suppress(ValueError):  # not JSON, or not text
            rows.append(read_json(line))
    return rows


def _cut_off(path: Path) -> bool:
    """Whether the last line has no end, because a process died while writing it."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
