"""What the services warn of in their logs, for the terminal of `ratchet up`: each warning once.

A warning that differs from an earlier one in its numbers alone is the same, such as that of every step, or of every request.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from services.run.tail import Tail

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]+) +[\w.]+: (?P<message>.*)")
"""A line as services/log_lines.py has it written; what follows without such a beginning belongs to it."""
LEVELS = ("WARNING", "ERROR", "CRITICAL")
UP_LOG = "up.log"
"""The log of `ratchet up` itself, whose warnings are on the terminal already."""
MOST = 40
"""Different warnings of one service that are shown; the log has all of them."""
_NUMBER = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{32}\b|\d+")
"""Also of the ids of requests, which are 32 digits and letters."""


class ServiceWarnings:
    """Follows the logs of one run."""

    def __init__(self, logs: Path, known: Iterable[str] = ()) -> None:
        """logs: the folder of the logs; what is in them already is skipped. known: warnings that were shown before."""
        self._logs = logs
        self._tails = {path: Tail(path) for path in logs.glob("*.log") if path.name != UP_LOG}
        self._seen = {_NUMBER.sub("#", message) for message in known}
        self._shown: Counter[str] = Counter()

    def read(self) -> list[str]:
        """What is to be shown now, each with the name of its service."""
        for path in self._logs.glob("*.log"):
            if path.name == UP_LOG:
                continue
            if path not in self._tails:
                self._tails[path] = Tail(path).from_the_start()
        found = []
        for path, tail in sorted(self._tails.items()):
            for message in warnings_in(tail.lines().decode("utf-8", errors="replace")):
                if (said := self._first(path, message)) is not None:
                    found.append(said)
        return found

    def _first(self, path: Path, message: str) -> str | None:
        """The text to show; None where it was shown before."""
        key = _NUMBER.sub("#", message)
        if key in self._seen or self._shown[path.stem] == MOST:
            return None
        self._seen.add(key)
        self._shown[path.stem] += 1
        more = f" (more are in {path})" if self._shown[path.stem] == MOST else ""
        return f"{path.stem}: {message}{more}"


def warnings_in(text: str) -> Iterator[str]:
    """The message, over several lines where it has them, of each warning in part of a log."""
    message = ""
    for line in text.splitlines():
        begun = _beginning(line)
        if begun is None:
            message += f"\n{line}" if message else ""
            continue
        if message:
            yield message
        level, message = begun
        if level not in LEVELS:
            message = ""
    if message:
        yield message


def _beginning(line: str) -> tuple[str, str] | None:
    """Level and message of a line that begins a record, in either format; None for one that goes on."""
    if begins := LINE.match(line):
        return begins["level"], begins["message"]
    if line.startswith("--- "):  # which the supervisor writes at a start
        return "", ""
    if line.startswith('{"time": '):
        with suppress(ValueError, KeyError):  # cut off, or not ours
            record = json.loads(line)
            return record["level"], record["message"]
    return None
