"""What `ratchet up` itself says: warnings to the terminal, and everything to logs/up.log, the noise of libraries included."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from rich.console import Console
from rich.text import Text

from services import log_lines
from services.command.bounded_log import LOG_BYTES

LOGGER = "ratchet"


class _Terminal(logging.Handler):
    """Prints above the live display, where there is one."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        warn(self._console, record.getMessage())


@contextmanager
def up_log(path: Path, console: Console) -> Iterator[None]:
    """Log to this file within the block, our own warnings also to the console. With JSON lines the console's place is taken by
    stderr, where `services.entry.start_logging` has them written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1, encoding="utf-8")
    file.setFormatter(log_lines.formatter("up"))
    ours, everything = logging.getLogger(LOGGER), logging.getLogger()
    handlers: list[tuple[logging.Logger, logging.Handler]] = [(everything, file)]
    if not log_lines.is_json():
        handlers.append((ours, _Terminal(console)))
    level = ours.level
    ours.setLevel(logging.INFO)
    for logger, handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, handler in handlers:
            logger.removeHandler(handler)
        ours.setLevel(level)
        file.close()


def warn(console: Console, text: str) -> None:
    """Print a warning, or log it where logs are JSON."""
    if log_lines.is_json():
        logging.getLogger("ratchet.up").warning("%s", text)
    else:
        console.print(Text.assemble(("warning: ", "yellow"), text), soft_wrap=True)


def say(console: Console, text: str, **fields: object) -> None:
    """Print a line that is not a warning, or log it where logs are JSON."""
    if log_lines.is_json():
        logging.getLogger("ratchet.up").info("%s", text, extra=log_lines.with_fields(**fields))
    else:
        console.print(text, highlight=False, soft_wrap=True, markup=False)
