"""A tracker that fails, hangs or cannot be opened neither ends nor slows a run."""

import logging
import threading
import time
from collections.abc import Mapping

import pytest

from learner.tracking.outbox import LAST_FAILURE, Outbox


class Recording:
    def __init__(self, fails: bool = False, held: threading.Event | None = None) -> None:
        self.taken: list[tuple[int, dict[str, float]]] = []
        self.tries = 0
        self.is_closed = False
        self._fails = fails
        self._held = held

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.tries += 1
        if self._held is not None:
            self._held.wait(20)
        if self._fails:
            raise ConnectionError("no route to host")
        self.taken.append((step, dict(figures)))

    def close(self) -> None:
        self.is_closed = True


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_everything_arrives_in_order_before_it_is_closed() -> None:
    tracker = Recording()
    outbox = Outbox("it", lambda: tracker)
    for step in range(50):
        outbox.log(step, {"step/loss": step / 2})
    outbox.close()
    assert tracker.taken == [(step, {"step/loss": step / 2}) for step in range(50)]
    assert tracker.is_closed


def test_one_that_cannot_be_opened_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> Recording:
        raise SystemExit("not logged in")

    outbox = Outbox("tracking.wandb", refuse)
    outbox.close()
    outbox.log(1, {"step/loss": 1.0})
    outbox.close()
    assert warnings(caplog) == ["tracking.wandb cannot be used: SystemExit: not logged in; the run goes on without it"]


def test_one_that_fails_is_given_up_after_some_tries(caplog: pytest.LogCaptureFixture) -> None:
    tracker = Recording(fails=True)
    outbox = Outbox("it", lambda: tracker)
    for step in range(20):
        outbox.log(step, {})
    outbox.close()
    assert tracker.tries == LAST_FAILURE
    assert tracker.is_closed
    assert warnings(caplog) == [
        "it failed: ConnectionError: no route to host; the run goes on",
        "it failed 5 times in a row; nothing more is sent to it",
    ]


def test_one_that_hangs_takes_no_time_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    held = threading.Event()
    outbox = Outbox("it", lambda: Recording(held=held), most_queued=3, close_s=0.05)
    start = time.monotonic()
    for step in range(1000):
        outbox.log(step, {})
    outbox.close()
    assert time.monotonic() - start < 5.0
    held.set()
    full, unfinished = warnings(caplog)
    assert "does not keep up: figures from step" in full
    assert "did not finish within 0 s" in unfinished
