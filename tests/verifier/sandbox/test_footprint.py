import os
import subprocess
import sys
import threading

import pytest

from verifier.sandbox import footprint as measuring
from verifier.sandbox.footprint import descendants, footprint, proportional_bytes

TREE = """
import os, sys, threading, time
held = bytearray(b"x") * (40 * 2**20)
end = time.process_time() + 0.2
while time.process_time() < end: pass
if os.fork() == 0:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    sys.stdout.write("up"); sys.stdout.flush()
time.sleep(60)
"""


@pytest.mark.parametrize("listed", [True, False])
def test_what_a_tree_of_processes_uses_is_counted_together(listed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if listed and not measuring.LISTS_CHILDREN:
        pytest.skip("this kernel does not list children")
    monkeypatch.setattr(measuring, "LISTS_CHILDREN", listed)
    tree = subprocess.Popen([sys.executable, "-S", "-c", TREE], stdout=subprocess.PIPE)
    try:
        assert tree.stdout is not None
        assert tree.stdout.read(2) == b"up"
        used = footprint(tree.pid)
        assert used.processes[0] == tree.pid
        assert len(used.processes) == 2
        assert used.threads == 3
        assert used.cpu_s >= 0.15
        assert used.memory_bytes > 80 * 2**20
        shared = proportional_bytes(used.processes)
        assert shared is None or 40 * 2**20 < shared < 75 * 2**20
    finally:
        for pid in descendants(tree.pid):
            os.kill(pid, 9)
        tree.communicate()


def test_children_of_other_threads_are_seen_and_processes_that_ended_are_not_an_error() -> None:
    children: list[subprocess.Popen[bytes]] = []
    parent = threading.Thread(target=lambda: children.append(subprocess.Popen(["/bin/sleep", "60"])))
    parent.start()
    parent.join()
    try:
        assert children[0].pid in descendants(os.getpid())
    finally:
        children[0].kill()
        children[0].wait()
    assert footprint(children[0].pid).memory_bytes == 0
