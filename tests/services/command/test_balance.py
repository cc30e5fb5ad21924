"""Which side limits a run, by how idle each is, and what would balance it."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from services.command import status
from services.command.balance import RECENT_S, Admitted, Idle, IdleWatch, balance, idle_between
from services.command.redis_server import RedisServer
from services.command.run_lock import locked
from services.command.run_processes import write_settings
from services.command.scrape import Scrape, parse
from services.command.status import describe
from services.run.addresses import announce_address
from services.run.folder import RunFolder
from tests.services.command.running import run

EXAMPLE = Admitted(groups_per_step=32, max_lag=2)
SYNCHRONOUS = Admitted(groups_per_step=32, max_lag=0)


@pytest.mark.parametrize(
    ("idle", "admitted", "said"),
    [
        (Idle(0.05, 0.04, 1), EXAMPLE, "balanced: the learner is idle 0.05 of the time, the engines 0.04"),
        (
            Idle(0.61, 0.0, 1),
            EXAMPLE,
            "sampling limits: the learner is idle 0.61 of the time, the engines 0.00; 1 x 1.00 / 0.39 = 2.6 replicas like "
            "this one would keep it busy",
        ),
        (Idle(0.5, 0.05, 3), EXAMPLE, "3 x 0.95 / 0.50 = 5.7 replicas like these would keep it busy"),
        (Idle(1.0, 0.05, 3), EXAMPLE, "sampling limits: the learner had nothing to do in all of this time"),
        (
            Idle(0.0, 0.75, 4),
            EXAMPLE,
            "the learner limits: it is idle 0.00 of the time, the engines 0.75; 4 x 0.25 / 1.00 = 1.0 replicas would do, or a "
            "learner 4.0 times as fast would use them all (learner.ranks)",
        ),
        (Idle(0.0, 1.0, 4), EXAMPLE, "the engines 1.00; a faster learner would use them all"),
        (
            Idle(0.4, 0.5, 1, graders=0.02),
            EXAMPLE,
            "grading limits: the learner is idle 0.40 of the time, the engines 0.50",
        ),
        (Idle(0.4, 0.5, 1, graders=0.5), SYNCHRONOUS, "learner and engines take turns"),
        (Idle(0.4, 0.5, 1, awaited="weight confirmations"), EXAMPLE, "weights limit"),
        (Idle(0.4, 0.5, 1, awaited="checkpoint"), EXAMPLE, "checkpoints limit"),
        (
            Idle(0.5, 0.25, 2, awaited="scored groups"),
            EXAMPLE,
            "(2 + 1) x 32 = 96 groups may be outstanding; if they come round as fast as now, 96 / 0.75 = 128 fill the time of "
            "the side that is less idle: learner.groups_per_step = 43, or learner.max_lag = 3",
        ),
        (Idle(1.0, 1.0, 2), EXAMPLE, "nothing happens"),
    ],
)
def test_the_side_that_limits_is_named_with_the_arithmetic(idle: Idle, admitted: Admitted, said: str) -> None:
    assert said in balance(idle, admitted)


def page(room: str, *, idle: float, busy: float, started: float = 1.0, **waits: float) -> str:
    lines = [
        f"process_start_time_seconds {started}",
        "# TYPE ratchet_idle_seconds counter",
        f'ratchet_idle_seconds_total{{room="{room}"}} {idle}',
        "# TYPE ratchet_busy_seconds counter",
        f'ratchet_busy_seconds_total{{room="{room}"}} {busy}',
        "# TYPE ratchet_wait_seconds counter",
    ]
    lines += [
        f'ratchet_wait_seconds_total{{room="{room}",awaiting="{awaited.replace("_", " ")}"}} {seconds}'
        for awaited, seconds in waits.items()
    ]
    return "\n".join(lines) + "\n"


def look(at_s: float, learner: str, *engines: str, verifier: str = "") -> dict[str, Scrape | None]:
    pages = {"learner": learner, **{f"rollout-{number}": one for number, one in enumerate(engines)}}
    pages |= {"verifier": verifier} if verifier else {}
    return {name: Scrape(at_s, at_s, parse(text).values) for name, text in pages.items()}


def test_shares_are_of_the_time_between_two_looks() -> None:
    before = look(
        0.0,
        page("learner", idle=90, busy=10, scored_groups=80),
        page("rollout", idle=50, busy=0),
        page("rollout", idle=9, busy=9),
    )
    now = look(
        10.0,
        page("learner", idle=96, busy=14, scored_groups=85, weight_confirmations=1),
        page("rollout", idle=51, busy=9),
        page("rollout", idle=12, busy=16),
        verifier=page("verifier", idle=3, busy=1),
    )
    idle = idle_between(before, now)
    assert idle is not None
    assert [idle.learner, idle.engines] == pytest.approx([0.6, 0.2])
    assert idle.replicas == 2
    assert (idle.graders, idle.awaited) == (0.75, "scored groups")


def test_an_evaluation_counts_for_neither_side() -> None:
    before = look(0.0, page("learner", idle=0, busy=0), page("rollout", idle=0, busy=0))
    now = look(10.0, page("learner", idle=7, busy=3, evaluation=6), page("rollout", idle=2, busy=8))
    idle = idle_between(before, now)
    assert idle is not None
    assert [idle.learner, idle.engines] == pytest.approx([0.25, 0.5])


def test_a_process_that_was_started_again_is_looked_at_from_its_start() -> None:
    before = look(0.0, page("learner", idle=0, busy=99), page("rollout", idle=50, busy=50))
    now = look(10.0, page("learner", idle=1, busy=1, started=9.0), page("rollout", idle=50, busy=60))
    idle = idle_between(before, now)
    assert idle is not None
    assert (idle.learner, idle.engines) == (0.5, 0.0)


def test_without_an_answer_of_both_sides_nothing_is_known() -> None:
    whole = look(0.0, page("learner", idle=1, busy=1), page("rollout", idle=1, busy=1))
    assert idle_between({}, whole) is not None
    assert idle_between({}, {**whole, "learner": None}) is None
    assert idle_between({}, {**whole, "rollout-0": None}) is None
    assert idle_between(whole, whole) is None  # no time has passed
    watch = IdleWatch()
    assert watch.said(EXAMPLE, []) is None
    watch.take({"learner": None})
    assert watch.said(EXAMPLE, []) is None


def test_a_watch_speaks_of_the_last_minutes_and_of_all_time_where_steps_are_longer_than_it_looked() -> None:
    watch = IdleWatch()
    steps = [{"seconds": 1.0, "waited_s": 1.0}]
    watch.take(look(0.0, page("learner", idle=0, busy=100), page("rollout", idle=0, busy=100)))
    watch.take(look(5.0, page("learner", idle=5, busy=100), page("rollout", idle=0, busy=105)))
    assert "the learner is idle 0.05" in (watch.said(EXAMPLE, steps) or "")
    assert "since their start" in (watch.said(EXAMPLE, steps) or "")
    watch.take(look(10.0, page("learner", idle=5, busy=105), page("rollout", idle=0, busy=110)))
    assert "idle 0.50 of the time, the engines 0.00" in (watch.said(EXAMPLE, steps) or "")
    assert "of the last 10 s" in (watch.said(EXAMPLE, steps) or "")
    for at_s in (11.0, 11.0 + RECENT_S):
        watch.take(look(at_s, page("learner", idle=5, busy=95 + at_s), page("rollout", idle=0, busy=100 + at_s)))
    assert "balanced" in (watch.said(EXAMPLE, steps) or "")


@contextmanager
def serving(*pages: str) -> Iterator[str]:
    """A server of /metrics that answers with one page after the other, the last one again and again."""
    following = itertools.chain(pages, itertools.repeat(pages[-1]))

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = next(following).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_status_asks_the_services_twice_and_says_who_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "LOOK_S", 0.01)
    config = run(tmp_path)
    folder = RunFolder(config.folder)
    folder.path.mkdir(parents=True)
    write_settings(config, folder)
    learner = page("learner", idle=40, busy=60), page("learner", idle=40.61, busy=60.39)
    engine = page("rollout", idle=30, busy=70), page("rollout", idle=30, busy=71)
    with RedisServer(folder.redis) as server, serving(*learner) as first, serving(*engine) as second:
        folder.redis_url.write_text(server.url, encoding="utf-8")
        announce_address(folder.services, "learner", first)
        announce_address(folder.services, "rollout-0", second)
        with locked(folder):
            said = describe(folder.path)
            again = describe(folder.path, IdleWatch())
    assert "1 x 1.00 / 0.39 = 2.6 replicas like this one would keep it busy (of the last " in said
    assert "since their start" in again  # the first look of a watch
