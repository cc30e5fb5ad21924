"""What the tests of graded code need of this machine: a sandbox, and a look at what a run has left behind."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from services.config.sandbox import Bubblewrap
from verifier.sandbox.footprint import descendants
from verifier.sandbox.launch import Launcher
from verifier.sandbox.probe import probe


def sandbox_or_skip() -> Launcher:
    """The launcher of this machine; without one the test is skipped, or fails if RATCHET_TEST_SANDBOX=required."""
    found = probe(Bubblewrap())
    if found.launcher is None:
        if os.environ.get("RATCHET_TEST_SANDBOX") == "required":
            pytest.fail(found.missing)
        pytest.skip(found.missing)
    return found.launcher


@contextmanager
def nothing_is_left() -> Iterator[None]:
    """Check that there are no more processes and open files than before."""
    processes, files = set(descendants(os.getpid())), len(os.listdir("/proc/self/fd"))
    yield
    assert set(descendants(os.getpid())) <= processes
    assert len(os.listdir("/proc/self/fd")) == files
