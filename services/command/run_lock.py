"""The run's folder, used by one command at a time."""

import contextlib
import fcntl
from collections.abc import Iterator

from services.errors import InputError
from services.run.folder import RunFolder


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Make the folder if it is missing, and hold it. Raises InputError if that cannot be done or another command holds it."""
    with contextlib.ExitStack() as held:
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(folder.lock.open("w"))
        except OSError as fault:
            raise InputError(
                f"the run's folder {folder.path} cannot be written: {fault.strerror}; choose another runs_folder, or make it "
                "writable"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder.path} is in use by another `ratchet up` or `ratchet eval`; choose another name, or stop that one"
            ) from None
        yield


def is_held(folder: RunFolder) -> bool:
    """Whether a command holds the folder now."""
    try:
        with folder.lock.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
