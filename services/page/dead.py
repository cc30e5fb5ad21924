"""Dead groups with their causes, and sending one round again: the only thing that the page changes."""

import base64
import threading
from typing import Any

from services.errors import InputError
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.run.tail import Tail
from services.streams.names import PROMPTS
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt, sent_again

SHOWN = 50
CAUSE_CHARACTERS = 600
MOST_KEPT = 1000
"""Dead groups whose rows, with their prompts, are kept in memory; dead.jsonl has them all."""


class DeadLetters:
    """Follows dead.jsonl. A group that is found dead again counts once, with its last cause."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._dead_lines = Tail(folder.dead).from_the_start()
        self._requeued_lines = Tail(folder.requeued).from_the_start()
        self._dead: dict[str, dict[str, Any]] = {}  # the newest
        self._found: set[str] = set()  # ids of them all
        self._requeued: dict[str, float] = {}
        self._guard = threading.Lock()

    def read(self) -> None:
        """Take in what was written since the last call."""
        for row in self._dead_lines.rows():
            self._dead.pop(row["group_id"], None)
            self._dead[row["group_id"]] = row
            self._found.add(row["group_id"])
        for group_id in list(self._dead)[:-MOST_KEPT]:
            del self._dead[group_id]
        for row in self._requeued_lines.rows():
            self._requeued[row["group_id"]] = row["at_unix_s"]

    def shown(self) -> dict[str, Any]:
        """The newest, and how many there are."""
        rows = list(self._dead.values())
        newest = [
            {
                "group": row["group_id"],
                "row": row["row"],
                "stage": row["stage"],
                "cause": row["cause"][:CAUSE_CHARACTERS],
                "at": row["at_unix_s"],
                "requeued": self._requeued.get(row["group_id"]),
                "can": row["prompt"] is not None and row["purpose"] == "train",
            }
            for row in rows[: -SHOWN - 1 : -1]
        ]
        return {"count": len(self._found), "newest": newest}

    def requeue(self, group_id: str, connection: RedisConnection, run: str) -> None:
        """Put the prompt of a dead training group on `prompts` again, once. Raises InputError, which says why not, or
        StreamError."""
        with self._guard:
            self.read()
            row = self._dead.get(group_id) or self._earlier(group_id)
            if row is None:
                raise InputError(f"no dead group is called {group_id}")
            if row["prompt"] is None:
                raise InputError(f"group {group_id} could not be decoded, so its prompt is not known")
            if row["purpose"] != "train":
                raise InputError(f"group {group_id} belongs to an evaluation, which is over")
            if group_id in self._requeued:
                raise InputError(f"group {group_id} was sent round again before")
            prompt = sent_again(decode(base64.b64decode(row["prompt"]), Prompt))
            stream = RedisStream(connection, run, PROMPTS, "page", 1e8)
            RedisIssueLog(connection, stream).issue_again(encode(prompt))
            with JsonLines(self._folder.requeued) as lines:
                lines.write(group_id=group_id)
            self.read()

    def _earlier(self, group_id: str) -> dict[str, Any] | None:
        """The last row of a group that is not kept in memory."""
        if group_id not in self._found:
            return None
        rows = Tail(self._folder.dead).from_the_start().rows()
        return next((row for row in reversed(rows) if row["group_id"] == group_id), None)
