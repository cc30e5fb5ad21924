"""How every service starts and ends: arguments, logging, signals, exit codes."""

import argparse
import importlib.metadata
import io
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
from urllib.parse import quote, urlsplit

from services import cause, library_logs, log_lines
from services.cause import Faults, disk_full
from services.clock import sleep
from services.config import RunConfig
from services.early import wait_for_word
from services.errors import InputError, RatchetError
from services.streams.redis_connection import RedisConnection

DONE = 0
FAULT = 1
"""A fault of ours; its traceback was printed."""
BAD_INPUT = 2
"""A setting, an argument or a data set is wrong; the message says which and what to do."""
FAILED = 3
"""Something that the run depends on failed."""
UNACCOUNTED = 4
"""`ratchet audit` found a group that is lost, doubled or skipped."""
INTERRUPTED = 130
REDIS_URL_VARIABLE = "RATCHET_REDIS_URL"
REDIS_PASSWORD_FILE_VARIABLE = "RATCHET_REDIS_PASSWORD_FILE"
"""Names a file that holds the password of Redis, for an address without one: a container's secret."""
END_CODE_VARIABLE = "RATCHET_END_FOR_GOOD_CODE"
"""Holds the exit code of a service that would end in the same way again, for what restarts a container by its code alone."""
SUPERVISED_VARIABLE = "RATCHET_SUPERVISOR_PID"
SWITCH_S = 0.0005
"""How long a thread keeps the interpreter when another asks for it. Python's 5 ms are an age for a thread that computes: it lets
go for each operation of some microseconds, and would stand still for 5 ms after it while another thread reads a queue."""
ORPHANS_GRACE_S = 20.0
"""How long a service whose supervisor is gone may take to stop."""

FAULTS_IN_A_ROW = 3
"""A service that a fault of ours, or of a library, has ended this often before it worked is not started again by Compose."""
_room = "service"
"""The room of this process, for its faults."""

log = logging.getLogger("ratchet")


class Parser(argparse.ArgumentParser):
    """An argument parser whose error is one line that says where help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}; see `{self.prog} --help`\n")


def version() -> str:
    """The installed version of Ratchet, such as "0.1.0"."""
    return importlib.metadata.version("ratchet")


def add_config_arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The arguments of every command that reads a run's settings."""
    parser.add_argument("config", type=Path, nargs="?" if optional else None, help="the run's settings: a TOML file")
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """`--set`, as often as somebody likes."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting, as in --set learner.steps=100; may be repeated",
    )


def end(main: Callable[[], int]) -> NoReturn:
    """Run `main` and end the process with its exit code, or with that of the error it raised.

    1: a fault of ours, with its traceback. 2: InputError. 3: any other RatchetError. 130: interrupted. A service leaves the
    error where its supervisor reads it (services/cause.py).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a character that the locale lacks is a question mark, not a traceback
            stream.reconfigure(errors="replace")
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = INTERRUPTED
        else:
            code = _say(disk_full(error) or error)
    sys.stdout.flush()
    sys.stderr.flush()
    if _orphaned():  # no supervisor is left to clear away what this service may have started
        os.killpg(os.getpgrp(), signal.SIGKILL)
    # Threads that libraries leave behind could hang the interpreter's own exit; everything of ours is closed by now.
    os._exit(code)


def _say(error: Exception) -> int:
    """Print what ended this process, and leave it for the supervisor; the exit code."""
    cause.leave(error)
    is_ours = isinstance(error, RatchetError)
    code = BAD_INPUT if isinstance(error, InputError) else FAILED if is_ours else FAULT
    if os.environ.get(log_lines.FORMAT_VARIABLE) == "json" and log.hasHandlers():
        log.critical("%s", error, exc_info=None if is_ours else error, extra=log_lines.with_fields(exit_code=code))
    elif is_ours:
        print(f"ratchet: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    for_good = os.environ.get(END_CODE_VARIABLE, "")
    if for_good.isdecimal() and _would_end_again(error):
        print(
            f"ratchet: this ends with {for_good} instead of {code}: another start would end as this one did",
            file=sys.stderr,
        )
        return int(for_good)
    return code


def _would_end_again(error: Exception) -> bool:
    """Whether another start would end by this error as well. A fault is counted: an outage would have an error of its own."""
    if isinstance(error, RatchetError):
        return error.retry == "never"
    return Faults(_room).count(error) >= FAULTS_IN_A_ROW


def works() -> None:
    """A service says that it does its work: it is ready, or has taken a step. Faults that ended it before no longer count."""
    if END_CODE_VARIABLE in os.environ:
        Faults(_room).forget()


def _reader_left() -> bool:
    """Whether the reader of what this process prints has closed the pipe, as `| head` does."""
    watched = select.poll()
    watched.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in watched.poll(0))


def service_parser(room: str, *, config_optional: bool = False) -> argparse.ArgumentParser:
    """The arguments that every `python -m <room>` takes."""
    parser = Parser(prog=f"ratchet {room}")
    add_config_arguments(parser, optional=config_optional)
    add_log_format(parser)
    parser.add_argument("--services-folder", type=Path, help=argparse.SUPPRESS)  # where `ratchet up` wants addresses
    return parser


def add_log_format(parser: argparse.ArgumentParser) -> None:
    """The argument of everything that logs."""
    parser.add_argument(
        "--log-format",
        choices=log_lines.FORMATS,
        help=f"lines in words, or one JSON object a line (default: {log_lines.FORMAT_VARIABLE}, or text)",
    )


def begin(parser: argparse.ArgumentParser, prepare: Callable[[RunConfig], object] | None = None) -> argparse.Namespace:
    """Read the arguments, set up logging and watch the supervisor. Every service begins with it.

    prepare: imports what the service needs and has not imported, where it is started before it may work (services/early.py).
    """
    end_when_asked()
    wait_for_word(prepare)
    sys.setswitchinterval(SWITCH_S)
    arguments = parser.parse_args()
    log_lines.choose(arguments.log_format)
    start_logging(parser.prog.removeprefix("ratchet "))
    watch_supervisor()
    return arguments


def start_logging(room: str = "ratchet") -> None:
    """Log to stderr: warnings of every library, and from INFO on what is ours. room: its name in JSON lines.

    Raises InputError when the environment asks for a format that there is not.
    """
    global _room  # noqa: PLW0603 - the process is one service, and says so once
    _room = room
    log_lines.start(room)
    library_logs.apply()


def redis_connection(config: RunConfig, *, deadline_s: float | None = None) -> RedisConnection:
    """A connection to the run's Redis server that has answered once. deadline_s: for each command; None: that of the run.

    Raises InputError if no server is given or it refuses the password, StreamError if it does not answer.

    Waits for: the Redis server.
    Until: deadline_s (deadlines.redis_s).
    Ended by: its answer, or the deadline.
    Metric: none; /metrics is served afterwards.
    """
    url = redis_url(config)
    if not url:
        raise InputError(
            f"no Redis: set redis.url or the environment variable {REDIS_URL_VARIABLE} to redis://:PASSWORD@HOST:6379/0, "
            "or let `ratchet up` start a server of its own"
        )
    connection = RedisConnection(url, deadline_s=deadline_s or config.deadlines.redis_s)
    connection.check()
    return connection


def redis_url(config: RunConfig) -> str | None:
    """The address of the run's Redis server, with its password; None: no server is named.

    Raises InputError if the password is to come from a file that cannot be read or is empty.
    """
    url = os.environ.get(REDIS_URL_VARIABLE) or config.redis.url
    if url:
        url = _with_certificates(url, config)
    file = os.environ.get(REDIS_PASSWORD_FILE_VARIABLE)
    if not url or not file or urlsplit(url).password:
        return url
    try:
        password = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "it is not text"
        raise InputError(
            f"{REDIS_PASSWORD_FILE_VARIABLE}: cannot read the password of Redis from {file}: {why}; let this user read it, or "
            f"name another file"
        ) from fault
    if not password:
        raise InputError(
            f"{REDIS_PASSWORD_FILE_VARIABLE}: {file} is empty; write the password of Redis into it (under Compose, into the file "
            f"that REDIS_PASSWORD_FILE names)"
        )
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.rstrip(':')}:{quote(password, safe='')}@{host}").geturl()


def _with_certificates(url: str, config: RunConfig) -> str:
    """The address with the files that TLS takes, as redis-py reads them from it. Raises InputError for one that is not there."""
    files = {
        "ssl_ca_certs": ("ca_file", config.redis.ca_file),
        "ssl_certfile": ("certificate_file", config.redis.certificate_file),
        "ssl_keyfile": ("key_file", config.redis.key_file),
    }
    given = {option: (name, path) for option, (name, path) in files.items() if path is not None}
    if not given or not url.startswith("rediss://"):
        return url
    for name, path in given.values():
        if not path.is_file():
            raise InputError(f"redis.{name} = {path}: there is no such file; give the path of a PEM file")
    query = "&".join(
        f"{option}={quote(str(path.resolve()))}" for option, (_, path) in given.items() if option not in url
    )
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def end_when_asked() -> None:
    """End this process at once at SIGTERM or SIGINT, with INTERRUPTED, until a StopSignal takes over: it has begun nothing."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(INTERRUPTED))


class StopSignal:
    """Becomes true at the first SIGTERM or SIGINT; a second one ends the process at once."""

    def __init__(self, on_stop: Callable[[], object] | None = None) -> None:
        """on_stop: called in the signal handler."""
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
    """End this process when its supervisor has ended, even if that was killed: an orphan would hold ports and cores."""

    def watch() -> None:
        """Look every second, in a thread; then stop this service, and after 20 s kill its process group.

        Waits for: the supervisor to end.
        Until: it has ended; there is no deadline.
        Ended by: the end of the supervisor.
        Metric: none; the service works while the thread waits.
        """
        while not _orphaned():
            sleep(1.0)
        log.error("the supervisor is gone; ending")
        os.kill(os.getpid(), signal.SIGTERM)
        sleep(ORPHANS_GRACE_S)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    if SUPERVISED_VARIABLE in os.environ:
        threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()


def _orphaned() -> bool:
    """Whether the supervisor of this process has died. A launcher of several ranks may stand between the two."""
    supervisor = os.environ.get(SUPERVISED_VARIABLE)
    if supervisor is None or os.getpgrp() != os.getpid():
        return False
    ancestor = os.getppid()
    while ancestor not in (0, 1, int(supervisor)):
        ancestor = _parent(ancestor)
    return ancestor != int(supervisor)


def _parent(process: int) -> int:
    """The parent's process id; 0: the process has ended."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0
    return int(status.rpartition(")")[2].split()[1])  # the name before the bracket may hold any character
