"""The run's folder, used by one learner at a time."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator

from services.errors import InputError
from services.run.folder import RunFolder

log = logging.getLogger("ratchet")


@contextlib.contextmanager
def held_by_learner(folder: RunFolder) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it when this process ends, however it does. Raises InputError if another learner
    holds it. Where the file system has no locks, nothing is held: the fence in Redis is then alone (services/streams/fence.py).
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.learner_lock.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise InputError(
                f"{folder.path} is in use by another learner ({lock.read().strip()}); stop it first, or choose another name "
                "for this run"
            ) from None
        except OSError as fault:
            log.debug("the file system of %s has no locks: %s", folder.path, fault)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield
