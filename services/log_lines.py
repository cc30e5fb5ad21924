"""The lines of a service's log: words for people, or one JSON object a line for what collects logs.

The environment says which, so that what a service starts in turn writes in the same way.
"""

import json
import logging
import os
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from services import library_logs
from services.errors import InputError

FORMAT_VARIABLE = "RATCHET_LOG_FORMAT"
FORMATS = ("text", "json")
TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def chosen() -> str:
    """What the environment asks for; text by default. Raises InputError for an unknown format."""
    asked = os.environ.get(FORMAT_VARIABLE, "") or FORMATS[0]
    if asked not in FORMATS:
        raise InputError(f"{FORMAT_VARIABLE} = {asked} is not a format of logs; give one of {', '.join(FORMATS)}")
    return asked


def is_json() -> bool:
    """Whether logs are JSON. Raises InputError for an unknown format."""
    return chosen() == "json"


def choose(asked: str | None) -> None:
    """Set the format for this process and all that it starts. None: what the environment asks for stays."""
    if asked is not None:
        os.environ[FORMAT_VARIABLE] = asked


def with_fields(**fields: Any) -> dict[str, Any]:
    """The `extra` of a logging call whose line has these fields in JSON; in words they are in the message."""
    return {"fields": fields}


class JsonLine(logging.Formatter):
    """Writes a record as one JSON object: time (UTC), level, room, logger, message, fields, and exception if there is one."""

    def __init__(self, room: str) -> None:
        super().__init__()
        self._room = room

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "room": self._room,
            "logger": record.name,
            "message": record.getMessage(),
            "fields": getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def formatter(room: str) -> logging.Formatter:
    """What writes the lines of this process. Raises InputError for an unknown format."""
    return JsonLine(room) if is_json() else logging.Formatter(TEXT)


def start(room: str) -> None:
    """Log to stderr: warnings of every library, and from INFO on what is ours. Raises InputError for an unknown format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(room))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("ratchet").setLevel(logging.INFO)
    if is_json():
        # vLLM would write lines of its own form, each with the name of its process before it.
        os.environ["VLLM_CONFIGURE_LOGGING"] = "0"
        logging.getLogger("vllm").setLevel(library_logs.level())
        sys.excepthook = _log_exception
        threading.excepthook = _log_exception_of_a_thread


def adopt(logger: logging.Logger) -> None:
    """Where logs are JSON, take the place of the handlers that a library gave its logger."""
    if is_json():
        logger.handlers.clear()
        logger.propagate = True


def _log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("ratchet").critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _log_exception_of_a_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        _log_exception(ended.exc_type, ended.exc_value, ended.exc_traceback)
