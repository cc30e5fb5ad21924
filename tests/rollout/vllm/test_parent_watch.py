import signal
import subprocess
import sys
import time

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


def test_an_engine_process_ends_with_a_rollout_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ROLLOUT], stdout=subprocess.PIPE) as rollout:
        assert rollout.stdout is not None
        assert rollout.stdout.readline() == b"up\n"  # the engine writes here too
        assert rollout.poll() is None
        rollout.send_signal(signal.SIGKILL)
        started_s = time.monotonic()
        assert rollout.stdout.read() == b""  # at its end when both have ended
        assert time.monotonic() - started_s < 10
