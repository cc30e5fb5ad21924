"""Ends the engine's processes when the rollout process that started them is gone, even if it was killed.

vLLM's processes end with their parent when it says goodbye, not when it is killed: the engine would keep its memory for
good, and the replica started in its place would find none. So the rollout process announces its process id in the
environment, and vLLM calls `follow` in each process of the engine, before that process loads anything: it is a plugin
of the group that vLLM loads everywhere (`vllm.general_plugins` in pyproject.toml).
"""

import importlib.metadata
import os
import select
import signal
import threading

from services import log_lines
from services.errors import InputError

PLUGIN = "ratchet_parent_watch"
PLUGIN_GROUP = "vllm.general_plugins"
_ALLOWED_VARIABLE = "VLLM_PLUGINS"
_PID_VARIABLE = "RATCHET_ROLLOUT_PID"


def announce() -> None:
    """Name this process as the one that the engine must not outlive. Called before vLLM is imported.

    The engine's processes inherit the environment. Raises InputError if vLLM would not find the plugin.
    """
    if PLUGIN not in importlib.metadata.entry_points(group=PLUGIN_GROUP).names:
        raise InputError(
            f"the ratchet installed here does not have the vLLM plugin {PLUGIN}, so an engine could outlive its replica; "
            "install it again: `make .venv/.ready` in a checkout, else `pip install` with the same arguments as before"
        )
    allowed = os.environ.get(_ALLOWED_VARIABLE)
    if allowed is not None and PLUGIN not in allowed.split(","):
        os.environ[_ALLOWED_VARIABLE] = f"{allowed},{PLUGIN}"
    os.environ[_PID_VARIABLE] = str(os.getpid())


def follow() -> None:
    """End this process as soon as the announced rollout process has ended. vLLM calls it in each of its processes, which
    log as the rollout process does where that is JSON.

    Does nothing in the rollout process itself, or if no process was announced.
    """
    rollout_pid = int(os.environ.get(_PID_VARIABLE, "0"))
    if rollout_pid in (0, os.getpid()):
        return
    if log_lines.is_json():
        log_lines.start("rollout")
    try:
        ended = os.pidfd_open(rollout_pid)
    except ProcessLookupError:
        _end()
    threading.Thread(target=_wait, args=(ended,), name="parent-watch", daemon=True).start()


def _wait(ended: int) -> None:
    """Wait in a thread of its own, then kill this process.

    Waits for: the rollout process.
    Until: it has ended; there is no deadline.
    Ended by: the end of the rollout process, for any reason.
    Metric: none; the engine works while the thread waits.
    """
    select.select([ended], [], [])
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # nothing to save, and an engine in a native call hears nothing else
