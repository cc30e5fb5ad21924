"""Ends an engine process when the rollout process that started it is gone, however it went.

vLLM's processes end with theirs when it says goodbye, not when it is killed: the engine would hold its memory for
good, and the replica started in its place would find none.
"""

import os
import select
import signal
import threading

_VARIABLE = "RATCHET_ROLLOUT_PID"


def announce() -> None:
    """Called by the rollout process before it starts the engine; inherited through the environment."""
    os.environ[_VARIABLE] = str(os.getpid())


def follow() -> None:
    """Called by every process of the engine; does nothing in the rollout process itself, or where nobody announced."""
    rollout_pid = int(os.environ.get(_VARIABLE, "0"))
    if rollout_pid in (0, os.getpid()):
        return
    try:
        ended = os.pidfd_open(rollout_pid)
    except ProcessLookupError:
        _end()
    threading.Thread(target=_wait, args=(ended,), name="lifeline", daemon=True).start()


def _wait(ended: int) -> None:
    select.select([ended], [], [])
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # nothing to save, and an engine in a native call hears nothing else
