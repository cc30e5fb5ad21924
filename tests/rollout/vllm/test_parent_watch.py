"""An engine process ends with the rollout process that started it, even if that is killed."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rollout.vllm import parent_watch
from services.errors import InputError
from tests.rollout.small_model import write_model

ENGINE = (
    "import time; from rollout.vllm import parent_watch; parent_watch.follow(); print('up', flush=True); time.sleep(60)"
)
ROLLOUT = f"""
import subprocess, sys, time
from rollout.vllm import parent_watch
parent_watch.announce()
parent_watch.follow()  # does not follow itself
subprocess.Popen([sys.executable, "-c", {ENGINE!r}])
time.sleep(60)
"""
REAL_ROLLOUT = """
import asyncio, sys, time
from rollout.vllm.engine import VllmEngine
from services.config.run import RunConfig

config = {
    "name": "parent-watch",
    "device": "cpu",
    "model": {"path": sys.argv[1], "max_length": 64, "dtype": "float32"},
    "prompts": {"source": {"type": "jsonl", "path": "unused.jsonl"}},
    "rollout": {"sampling": {"max_tokens": 8}, "kv_cache_gib": 0.05, "engine_process": "own"},
    "learner": {"steps": 1, "groups_per_step": 1},
    "weights": {"type": "gloo"},
}

async def main():
    await VllmEngine(RunConfig.model_validate(config)).start()
    time.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_process_ends_with_a_rollout_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ROLLOUT], stdout=subprocess.PIPE) as rollout:
        assert rollout.stdout is not None
        assert rollout.stdout.readline() == b"up\n"  # the engine writes here too
        assert rollout.poll() is None
        rollout.send_signal(signal.SIGKILL)
        started_s = time.monotonic()
        assert rollout.stdout.read() == b""  # at its end when both have ended
        assert time.monotonic() - started_s < 10


def test_the_processes_of_a_real_engine_end_with_a_rollout_that_is_killed(tmp_path: Path) -> None:
    write_model(tmp_path, tied=True)
    with subprocess.Popen([sys.executable, "-c", REAL_ROLLOUT, str(tmp_path)], stdout=subprocess.DEVNULL) as rollout:
        until(lambda: any(map(watched, descendants(rollout.pid))), "no watch", 240)  # before anything is loaded
        assert rollout.poll() is None
        engines = descendants(rollout.pid)
        rollout.send_signal(signal.SIGKILL)
        rollout.wait()
        until(lambda: not any(map(running, engines)), "the engine outlives its rollout", 10)


def until(condition: Callable[[], bool], complaint: str, within_s: float) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, complaint
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *descendants(child)]
    return found


def watched(pid: int) -> bool:
    """Whether a thread of this process waits for another process to end."""
    links = Path(f"/proc/{pid}/fd")
    try:
        return any(os.readlink(link) == "anon_inode:[pidfd]" for link in links.iterdir())
    except OSError:
        return False  # it has ended


def running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_an_installation_without_the_plugin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: importlib.metadata.EntryPoints())
    with pytest.raises(InputError, match=r"does not have the vLLM plugin ratchet_parent_watch.*install it again"):
        parent_watch.announce()


@pytest.mark.parametrize(
    ("allowed", "then"), [("mine", "mine,ratchet_parent_watch"), ("ratchet_parent_watch", "ratchet_parent_watch")]
)
def test_a_list_of_allowed_plugins_is_extended(monkeypatch: pytest.MonkeyPatch, allowed: str, then: str) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    monkeypatch.setenv("RATCHET_ROLLOUT_PID", "0")
    parent_watch.announce()
    assert os.environ["VLLM_PLUGINS"] == then
    assert os.environ["RATCHET_ROLLOUT_PID"] == str(os.getpid())
