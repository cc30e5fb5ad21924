"""What the pool reads of a grader process is what that process has written, whenever it looks."""

import os
import subprocess
import sys
from pathlib import Path

from verifier.pool.protocol import PAGE_BYTES, ItemProgress, ProgressPage

READS = 300_000
WRITER = """
import sys
from verifier.pool.protocol import ProgressPage
page, number = ProgressPage(int(sys.argv[1])), 0
while True:
    number += 1
    page.write(number, number, float(number), float(number))
"""


def test_no_read_mixes_two_writes_of_a_process_that_is_busy_writing(tmp_path: Path) -> None:
    with (tmp_path / "page").open("w+b") as file:
        file.truncate(PAGE_BYTES)
        page = ProgressPage(file.fileno())
        with subprocess.Popen([sys.executable, "-c", WRITER, str(file.fileno())], pass_fds=[file.fileno()]) as writer:
            try:
                while page.read().chunk == 0:
                    assert writer.poll() is None
                seen = [page.read() for _ in range(READS)]
            finally:
                writer.kill()
        last = page.read()  # the writer was killed somewhere in a write
        page.close()
    mixed = [one for one in [*seen, last] if not one.chunk == one.index == one.since_s == one.since_cpu_s]
    assert not mixed
    assert len({one.chunk for one in seen}) > 100, "the writer was not writing meanwhile"


def test_the_last_write_counts() -> None:
    descriptor = os.memfd_create("page")
    os.ftruncate(descriptor, PAGE_BYTES)
    page = ProgressPage(descriptor)
    os.close(descriptor)
    for number in range(1, 4):
        page.write(number, 0, float(number), 0.0)
        assert page.read() == ItemProgress(number, 0, float(number), 0.0, loading=False)
    page.close()
