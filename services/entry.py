"""How every service starts and ends: arguments, logging, signals, exit codes."""

import argparse
import logging
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from services.clock import sleep
from services.config import RunConfig
from services.errors import InputError, RatchetError
from services.streams.redis_connection import RedisConnection

DONE, FAULT, BAD_INPUT, FAILED, INTERRUPTED = 0, 1, 2, 3, 130
REDIS_URL_VARIABLE = "RATCHET_REDIS_URL"
SUPERVISED_VARIABLE = "RATCHET_SUPERVISOR_PID"
ORPHANS_GRACE_S = 20.0

log = logging.getLogger("ratchet")


def add_config_arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument("config", type=Path, nargs="?" if optional else None, help="the run: a TOML file")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="section.key=value", help="override one setting"
    )


def end(main: Callable[[], int]) -> NoReturn:
    """Run `main` and end the process with its exit code, or with the code of the error that it raised.

    1: a fault of ours, with its traceback. 2: InputError. 3: any other RatchetError. 130: interrupted.
    """
    try:
        code = main()
        sys.stdout.flush()
    except InputError as error:
        print(f"ratchet: {error}", file=sys.stderr)
        code = BAD_INPUT
    except RatchetError as error:
        print(f"ratchet: {error}", file=sys.stderr)
        code = FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = INTERRUPTED
        else:
            traceback.print_exc()
            code = FAULT
    sys.stdout.flush()
    sys.stderr.flush()
    if _orphaned():  # there is no supervisor left to end what this service may have started
        os.killpg(os.getpgrp(), signal.SIGKILL)
    # Threads of libraries may hang the interpreter's own exit; everything of ours is closed by now.
    os._exit(code)


def _reader_left() -> bool:
    """Whether the reader of this process's output has closed the pipe, as `| head` does."""
    watched = select.poll()
    watched.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in watched.poll(0))


def service_parser(room: str, *, config_optional: bool = False) -> argparse.ArgumentParser:
    """The arguments that every `python -m <room>` takes."""
    parser = argparse.ArgumentParser(prog=f"ratchet {room}")
    add_config_arguments(parser, optional=config_optional)
    parser.add_argument("--services-folder", type=Path, help=argparse.SUPPRESS)  # where `ratchet up` wants addresses
    return parser


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the arguments, set up logging and watch the supervisor."""
    arguments = parser.parse_args()
    start_logging()
    watch_supervisor()
    return arguments


def start_logging() -> None:
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    log.setLevel(logging.INFO)


def redis_connection(config: RunConfig, *, deadline_s: float | None = None) -> RedisConnection:
    """A connection to the run's Redis that was tried out.

    deadline_s: seconds for each command, by default deadlines.redis_s. Raises InputError when there is no URL or the server
    refuses it, and StreamError when it does not answer.
    """
    url = os.environ.get(REDIS_URL_VARIABLE) or config.redis.url
    if not url:
        raise InputError(
            f"no Redis: set redis.url or the environment variable {REDIS_URL_VARIABLE} to redis://:PASSWORD@HOST:6379/0, "
            "or let `ratchet up` start a server of its own"
        )
    connection = RedisConnection(url, deadline_s=deadline_s or config.deadlines.redis_s)
    connection.check()
    return connection


class StopSignal:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""

    def __init__(self, on_stop: Callable[[], object] | None = None) -> None:
        self._event = threading.Event()
        self._on_stop = on_stop
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: object) -> None:
        if self._event.is_set():
            os._exit(INTERRUPTED)
        self._event.set()
        if self._on_stop is not None:
            self._on_stop()

    def __call__(self) -> bool:
        return self._event.is_set()


def watch_supervisor() -> None:
    """End this process when its supervisor ends, also by SIGKILL: an orphan would hold ports and cores forever."""

    def watch() -> None:
        while not _orphaned():
            sleep(1.0)
        log.error("the supervisor is gone; ending")
        os.kill(os.getpid(), signal.SIGTERM)
        sleep(ORPHANS_GRACE_S)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    if SUPERVISED_VARIABLE in os.environ:
        threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()


def _orphaned() -> bool:
    """Whether the supervisor that started this process has died. A launcher of several ranks may stand between the two."""
    supervisor = os.environ.get(SUPERVISED_VARIABLE)
    if supervisor is None or os.getpgrp() != os.getpid():
        return False
    ancestor = os.getppid()
    while ancestor not in (0, 1, int(supervisor)):
        ancestor = _parent(ancestor)
    return ancestor != int(supervisor)


def _parent(process: int) -> int:
    """The id of the parent process; 0 when the process has ended."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0
    return int(status.rpartition(")")[2].split()[1])  # the name before the bracket may hold any character
