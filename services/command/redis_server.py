"""A private Redis server for one machine: a child process behind a unix socket, with its data in the run's folder.

Durability with `fsync="everysec"`: what was answered is in the operating system's hands, so a killed server loses
nothing, unless the disk was so slow that the server held writes back (two seconds at most). A machine that goes down
loses at most those two seconds. What is left is always the state of one earlier moment: what was done since then is done
again. With `fsync="always"` nothing that was answered is ever lost, and every write waits for the disk.
"""

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal, Self
from urllib.parse import quote

from services.clock import now_s
from services.command.redis_binary import find_binary
from services.errors import InputError, ServiceFailed, StreamError
from services.streams.redis_connection import RedisConnection

LONGEST_SOCKET_PATH_BYTES = 100  # the limit is 104 to 108 on the systems we know
PR_SET_PDEATHSIG = 1
SETTINGS = """
port 0
unixsocketperm 600
daemonize no
appendonly yes
aof-load-truncated yes
save ""
maxmemory-policy noeviction
"""


class RedisServer:
    """A server that can be started, stopped and started again. Its URL, with a generated password, stays the same.

    The server does not get the Ctrl-C given to this process. On Linux it ends with this process, even if that is killed.
    """

    def __init__(self, folder: Path, *, fsync: Literal["everysec", "always"] = "everysec") -> None:
        """folder: where the append-only file and the log are kept; the next server finds its data there."""
        self.folder = folder.resolve()
        self._fsync = fsync
        self._password = secrets.token_urlsafe(24)
        self._private = Path(tempfile.mkdtemp(prefix="ratchet-", dir=_short_folder()))  # mode 0700
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Contains the password: pass it on in an environment variable, not on a command line."""
        return f"unix://:{self._password}@{quote(str(self._private / 'redis.sock'))}"

    @property
    def log(self) -> Path:
        return self.folder / "redis.log"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a server that has ended, else None; negative: the signal that killed it."""
        return self._process.poll() if self._process else None

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, within_s: float = 60.0) -> None:
        """Start the server and return once its data is loaded.

        Call it in the main thread: on Linux the server ends with the thread that started it. Raises InputError if there is
        no binary or another server uses the folder, ServiceFailed if the server ends at once, StreamError if it is not
        ready in time.

        Waits for: another server to let go of the folder, then this server to load its data.
        Until: within_s, each time.
        Ended by: the server's answer, its end, or the deadline.
        Metric: none; `ratchet up` starts its services afterwards.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("start the Redis server in the main thread: it ends with the thread that started it")
        if self.running():
            return
        binary, version = find_binary()
        self.folder.mkdir(parents=True, exist_ok=True)
        if version < (7, 0) and (self.folder / "appendonlydir").exists():
            raise InputError(
                f"{self.folder} was written by Redis 7 or later and {binary} is older: it would start empty. "
                "Put the newer redis-server on PATH."
            )
        with _folder_lock(self.folder, within_s) as lock:
            self._process = subprocess.Popen(
                [str(binary), "-"],  # the settings come through stdin: no password in a file or among the arguments
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[lock.fileno()],  # the server holds the lock for as long as it lives
                start_new_session=True,
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 - calls the kernel and nothing else
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as settings:
            settings.write(self._settings().encode())
        self._await_ready(now_s() + within_s)

    def stop(self, within_s: float = 10.0) -> None:
        """Let the server write everything and end.

        Waits for: the server.
        Until: within_s; then it is killed.
        Ended by: its end.
        Metric: none; the services have ended before.
        """
        if self._process is None:
            return
        self._process.terminate()  # Redis answers SIGTERM as it does SHUTDOWN
        self.wake()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        (self._private / "redis.sock").unlink(missing_ok=True)

    def wake(self) -> None:
        """Let a server go on that somebody has suspended."""
        if self.running() and self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop for good and remove the socket's folder."""
        self.stop()
        shutil.rmtree(self._private, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settings(self) -> str:
        return SETTINGS + "".join(
            f"{name} {_quoted(value)}\n"
            for name, value in (
                ("unixsocket", str(self._private / "redis.sock")),
                ("requirepass", self._password),
                ("dir", str(self.folder)),
                ("logfile", str(self.log)),
                ("appendfsync", self._fsync),
            )
        )

    def _await_ready(self, end_s: float) -> None:
        """Return once the server answers; see `start`.

        Waits for: the server to load its data.
        Until: end_s, in monotonic seconds.
        Ended by: its answer, its end, or the deadline.
        Metric: none; `ratchet up` starts its services afterwards.
        """
        assert self._process is not None
        while True:
            connection = RedisConnection(self.url, deadline_s=0.5)
            try:
                connection.check()
                return
            except StreamError as fault:
                if self._process.poll() is not None:
                    raise ServiceFailed(
                        f"the Redis server ended with code {self._process.returncode} while starting. The end of "
                        f"{self.log}:\n{self._log_tail()}"
                    ) from None
                if now_s() >= end_s:
                    self.stop()
                    raise StreamError(f"the Redis server was not ready in time: {fault} See {self.log}.") from fault
            finally:
                connection.close()

    def _log_tail(self) -> str:
        if not self.log.exists():
            return "(no log was written: is the folder writable?)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])


def _short_folder() -> str:
    room = len("/ratchet-12345678/redis.sock")
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) + room <= LONGEST_SOCKET_PATH_BYTES else "/tmp"


@contextlib.contextmanager
def _folder_lock(folder: Path, within_s: float) -> Iterator[IO[bytes]]:
    """Lock the folder, or a second server would write into the first one's data. The server inherits the open file.

    Raises InputError after within_s.

    Waits for: another server that uses the folder.
    Until: within_s.
    Ended by: the end of that server, or the deadline.
    Metric: none; `ratchet up` starts its services afterwards.
    """
    end_s = now_s() + within_s
    with (folder / "redis.lock").open("wb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if now_s() >= end_s:
                    raise InputError(
                        f"another Redis server uses {folder}. Stop the `ratchet up` that started it, or choose another "
                        "run name."
                    ) from None
                time.sleep(0.05)
        yield lock


def _end_with_parent() -> Callable[[], None] | None:
    """What the child runs before it becomes the server: it asks the kernel for SIGTERM when this thread ends."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may take a lock
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # the parent was gone before the kernel knew

    return ask


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
