"""Reading files that services append to."""

import os
from pathlib import Path
from typing import Any

from services.run.json_lines import json_rows


class Tail:
    """Reads what is appended to a file of lines."""

    def __init__(self, path: Path) -> None:
        """Lines that are there already are skipped."""
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def from_the_start(self) -> "Tail":
        """The same, with the lines that are there already."""
        self._offset = 0
        return self

    def lines(self) -> bytes:
        """The lines since the last call, without the last one's end; one that is not finished yet is left for the next call."""
        if not self._path.exists():
            return b""
        with self._path.open("rb") as lines:
            if lines.seek(0, os.SEEK_END) < self._offset:  # it was begun again, to bound its size
                self._offset = 0
            lines.seek(self._offset)
            new = lines.read()
        whole = new.rpartition(b"\n")[0]
        self._offset += len(whole) + bool(whole)
        return whole

    def rows(self) -> list[dict[str, Any]]:
        """The rows of a JSON lines file since the last call."""
        return json_rows(self.lines())
