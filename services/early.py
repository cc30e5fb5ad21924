"""A service that is started before it may work, so that what it imports is there when it may.

While `ratchet up` checks a run it has the processes of learner and replicas import what they need, which is most of their
start (services/command/early_start.py). Each then waits for one line at its standard input: where to log, with which arguments
and which environment. It does nothing of the run before, and ends without a word if the line never comes. One may be asked a
question meanwhile, for which `ratchet up` would have to import the same.
"""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from services.config import RunConfig
from services.config.load import load

SETTINGS_VARIABLE = "RATCHET_EARLY_SETTINGS"
"""Holds the path of the run's settings, in the environment of a service that is started early."""

ASKED_VARIABLE = "RATCHET_EARLY_ASKED"
"""Names a function of the settings that returns bytes, as module:function, and behind a blank the file descriptor that they go
to."""


class Word(msgspec.Struct, frozen=True):
    """What a service that was started early is told when it may work."""

    arguments: list[str]
    environment: dict[str, str]
    log_path: str
    """Where its output goes from now on; appended to."""


def wait_for_word(prepare: Callable[[RunConfig], object] | None = None) -> None:
    """Return when this process may work: at once, unless it was started early. prepare: imports what this room needs.

    Waits for: the line of `ratchet up`, which checks the run meanwhile.
    Until: the checks have ended; each has a deadline of its own.
    Ended by: the line, or the end of `ratchet up`, which closes the pipe.
    Metric: none; the service has not begun.
    """
    settings = os.environ.pop(SETTINGS_VARIABLE, None)
    if settings is None:
        return
    if prepare is not None:
        prepare(load(Path(settings), []))
    if asked := os.environ.pop(ASKED_VARIABLE, None):
        _answer(asked, load(Path(settings), []))
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        os._exit(0)  # the run is not to be, and the libraries that are loaded would have things to close
    word = msgspec.json.decode(line, type=Word)
    os.environ.update(word.environment)
    sys.argv[1:] = word.arguments
    log = os.open(word.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())


def _answer(asked: str, config: RunConfig) -> None:
    """Write what the function says to the descriptor, and close it. If it raises, nothing is written: whoever asked finds out."""
    function, _, descriptor = asked.rpartition(" ")
    module, _, name = function.partition(":")
    with os.fdopen(int(descriptor), "wb") as pipe:
        pipe.write(getattr(importlib.import_module(module), name)(config))
