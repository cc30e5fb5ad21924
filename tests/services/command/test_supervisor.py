"""Real processes under a real supervisor: what dies comes back alone, what cannot be helped ends the run."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.command import supervisor
from services.command.redis_server import RedisServer
from services.command.supervisor import Service, Supervisor
from services.entry import DONE, FAILED, INTERRUPTED
from services.errors import InputError, ServiceFailed
from services.streams.redis_connection import RedisConnection

SLEEP = "import time; time.sleep(600)"
# Leaves a child behind the first time; says the second time whether that is still there.
LEAVING = """
import subprocess, sys, time
from pathlib import Path
left, seen = Path(sys.argv[1], "left"), Path(sys.argv[1], "seen")
if left.exists():
    stat = Path("/proc", left.read_text(), "stat")
    seen.write_text("alive" if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z" else "gone")
    time.sleep(600)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session={own_session})
left.write_text(str(child.pid))
sys.exit(3)
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def make(name: str, program: str, *arguments: str) -> Service:
        command = [sys.executable, "-c", program, *arguments]
        made.append(Service(name, command, tmp_path / "logs" / f"{name}.log", {}))
        return made[-1]

    yield make
    for one in made:
        one.clear_away()


def until(condition: Callable[[], bool]) -> Callable[[], bool]:
    """A `stopping` that fails the test if it takes too long."""
    end_s = time.monotonic() + 60

    def met() -> bool:
        assert time.monotonic() < end_s, "it takes too long"
        return condition()

    return met


def nothing() -> None:
    """The tick of a run that is not displayed."""


@pytest.mark.parametrize("own_session", [False, True])
def test_what_a_dead_service_left_is_gone_before_it_starts_again(
    service: Callable[..., Service], tmp_path: Path, own_session: bool
) -> None:
    learner = service("learner", SLEEP)
    verifier = service("verifier", LEAVING.format(own_session=own_session), str(tmp_path))
    seen = tmp_path / "seen"
    code = Supervisor(learner, [verifier], shutdown_s=10).run(
        until(lambda: seen.exists() and seen.read_text() != ""), nothing
    )
    assert code == INTERRUPTED
    assert seen.read_text() == "gone"


def test_what_one_service_left_does_not_cost_another_its_life(service: Callable[..., Service], tmp_path: Path) -> None:
    learner = service("learner", SLEEP)
    other = service("rollout-0", SLEEP)
    verifier = service("verifier", LEAVING.format(own_session=True), str(tmp_path))
    pids = []

    def look() -> None:
        assert learner.process is not None
        assert other.process is not None
        pids.append((learner.process.pid, other.process.pid))

    Supervisor(learner, [other, verifier], shutdown_s=10).run(until((tmp_path / "seen").exists), look)
    assert len(set(pids)) == 1


def test_stopping_leaves_nothing_that_a_service_started(service: Callable[..., Service], tmp_path: Path) -> None:
    program = LEAVING.format(own_session=True).replace("sys.exit(3)", "time.sleep(600)")
    verifier, left = service("verifier", program, str(tmp_path)), tmp_path / "left"
    Supervisor(service("learner", SLEEP), [verifier], shutdown_s=10).run(
        until(lambda: left.exists() and left.read_text() != ""), nothing
    )
    stat = Path("/proc", left.read_text(), "stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


# Says that it is up, and then what its second argument says when it is asked to stop.
STOPPING = """
import pathlib, signal, sys, time
def stop(*_):
    {stop}
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1]).write_text("up")
while True:
    time.sleep(0.05)
"""


def stopped_in_s(learner: Service, feeding: list[Service], up: list[Path], at_stop: Callable[[], None]) -> float:
    """How long a stop takes once all of `up` are there. at_stop: called just before it."""
    since_s = []

    def stopping() -> bool:
        if all(path.exists() for path in up):
            at_stop()
            since_s.append(time.monotonic())
        return bool(since_s)

    assert Supervisor(learner, feeding, shutdown_s=30).run(until(stopping), nothing) == INTERRUPTED
    return time.monotonic() - since_s[0]


def test_services_that_feed_the_learner_stop_together(
    service: Callable[..., Service], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    up = [tmp_path / f"up-{i}" for i in range(4)]
    slowly = STOPPING.format(stop="time.sleep(1.0); sys.exit(0)")
    feeding = [service(f"rollout-{i}", slowly, str(path)) for i, path in enumerate(up)]
    assert 1.0 <= stopped_in_s(service("learner", SLEEP), feeding, up, nothing) < 3.0
    assert "did not stop" not in caplog.text


def test_services_that_do_not_stop_are_killed_after_one_grace_and_not_after_the_sum(
    service: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FEEDING_STOP_S", 1.0)
    up = [tmp_path / f"up-{i}" for i in range(4)]
    feeding = [service(f"rollout-{i}", STOPPING.format(stop="pass"), str(path)) for i, path in enumerate(up)]
    assert 1.0 <= stopped_in_s(service("learner", SLEEP), feeding, up, nothing) < 3.0
    assert caplog.text.count("did not stop within 1 s; killing it") == 4
    assert all(one.process is not None and one.process.returncode == -signal.SIGKILL for one in feeding)


def test_the_learner_has_stopped_before_what_feeds_it_is_asked(service: Callable[..., Service], tmp_path: Path) -> None:
    up, order = [tmp_path / "learner", tmp_path / "verifier"], tmp_path / "order"
    said = f"time.sleep(0.5); open({str(order)!r}, 'a').write({{name!r}}); sys.exit(130)"
    learner = service("learner", STOPPING.format(stop=said.format(name="learner ")), str(up[0]))
    verifier = service("verifier", STOPPING.format(stop=said.format(name="verifier ")), str(up[1]))
    stopped_in_s(learner, [verifier], up, nothing)
    assert order.read_text() == "learner verifier "


def test_suspended_services_and_a_suspended_server_are_woken_to_stop(
    service: Callable[..., Service], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    up = [tmp_path / "learner", tmp_path / "verifier"]
    program = STOPPING.format(stop="sys.exit(130)")
    learner, verifier = service("learner", program, str(up[0])), service("verifier", program, str(up[1]))
    suspended: list[int] = []

    def suspend() -> None:
        assert learner.process is not None
        assert verifier.process is not None
        assert server.pid is not None
        suspended.extend([learner.process.pid, verifier.process.pid, server.pid])
        for pid in suspended:
            os.kill(pid, signal.SIGSTOP)

    with RedisServer(tmp_path / "redis") as server:
        run = stopped_in_s(learner, [verifier], up, suspend)
        began_s = time.monotonic()
    assert run + time.monotonic() - began_s < 5.0
    assert "killing it" not in caplog.text
    assert learner.process is not None
    assert learner.process.returncode == INTERRUPTED


def test_the_learner_being_done_ends_the_run(service: Callable[..., Service]) -> None:
    run = Supervisor(service("learner", "pass"), [service("verifier", SLEEP)], shutdown_s=10)
    assert run.run(until(lambda: False), nothing) == DONE


def test_a_service_that_refuses_its_input_is_not_started_again(service: Callable[..., Service]) -> None:
    refusing = service("verifier", "import sys; print('no such grader'); sys.exit(2)")
    with pytest.raises(InputError, match=r"verifier refused its input:(.|\n)*no such grader"):
        Supervisor(service("learner", SLEEP), [refusing], shutdown_s=10).run(until(lambda: False), nothing)


ENDING = """
from services import entry
from services.errors import *
def main():
    {body}
entry.end(main)
"""
# As torchrun does, which makes 1 of its ranks' exit codes.
LAUNCHER = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode and 1)"


def test_what_is_wrong_with_the_input_ends_the_run_at_once_whatever_the_exit_code(
    service: Callable[..., Service],
) -> None:
    refusing = service("learner", LAUNCHER, ENDING.format(body="raise InputError('written by two ranks')"))
    with pytest.raises(InputError, match=r"learner refused its input:\n    written by two ranks"):
        Supervisor(refusing, [], shutdown_s=10).run(until(lambda: False), nothing)


def test_a_full_disk_ends_the_run_at_once_with_its_cause(service: Callable[..., Service]) -> None:
    full = service("learner", LAUNCHER, ENDING.format(body="open('/dev/full', 'w').write('x' * 100000)"))
    with pytest.raises(ServiceFailed, match=r"learner cannot go on: no space is left on the disk"):
        Supervisor(full, [], shutdown_s=10).run(until(lambda: False), nothing)


def test_the_same_error_twice_ends_the_run_with_its_words(
    service: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    body = "import os; raise ValueError(f'no kernel for this head in process {os.getpid()}')"
    failing = service("rollout-0", ENDING.format(body=body))
    with pytest.raises(
        ServiceFailed, match=r"rollout-0 ended twice for the same reason.*ValueError: no kernel for this"
    ):
        Supervisor(service("learner", SLEEP), [failing], shutdown_s=10).run(until(lambda: False), nothing)
    assert caplog.text.count("starting it again") == 1
    assert "rollout-0 ended with code 1 (ValueError: no kernel for this head" in caplog.text


@pytest.mark.parametrize("kind", ["an outage", "progress"])
def test_the_same_error_again_is_no_end_after_progress_or_in_an_outage(
    service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(supervisor, "RESTARTS", 2)
    error = "StreamError('no answer')" if kind == "an outage" else "ValueError('rarely')"
    failing = service("rollout-0", ENDING.format(body=f"raise {error}"))
    steps = iter(range(9))
    run = Supervisor(
        service("learner", SLEEP), [failing], shutdown_s=10, progress=lambda: next(steps) if kind == "progress" else 0
    )
    with pytest.raises(ServiceFailed, match=r"after 2 restarts"):
        run.run(until(lambda: False), nothing)


def test_a_service_that_keeps_dying_ends_the_run_with_its_last_words(
    service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESTARTS", 1)
    dying = service("verifier", f"import sys; print('no memory'); sys.exit({FAILED})")
    with pytest.raises(ServiceFailed, match=r"verifier ended with code 3, after 1 restarts(.|\n)*no memory"):
        Supervisor(service("learner", SLEEP), [dying], shutdown_s=10).run(until(lambda: False), nothing)


def test_a_service_that_dies_seldom_is_not_started_again_without_end_while_the_run_stands_still(
    service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start takes so long that no two deaths are within the window."""
    monkeypatch.setattr(supervisor, "RESTARTS", 2)
    monkeypatch.setattr(supervisor, "RESTART_WINDOW_S", 0.0)
    dying = "import os; os.kill(os.getpid(), 9)"
    run = Supervisor(service("learner", SLEEP), [service("rollout-0", dying)], shutdown_s=10)
    with pytest.raises(ServiceFailed, match=r"SIGKILL, after 2 restarts in which the run took no step"):
        run.run(until(lambda: False), nothing)
    steps, deaths = iter(range(99)), []

    def progress() -> int:
        deaths.append(next(steps))
        return deaths[-1]

    gets_on = Supervisor(service("learner", SLEEP), [service("rollout-1", dying)], shutdown_s=10, progress=progress)
    assert gets_on.run(until(lambda: len(deaths) > 4), nothing) == INTERRUPTED


def test_deaths_of_the_learner_that_it_was_expected_to_die_are_not_counted(
    service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "RESTARTS", 1)
    tried = iter(["step 7 with 4 groups", "step 7 with 2 groups", "step 7 with 1 group"])
    dying = service("learner", "import os; os.kill(os.getpid(), 9)")
    run = Supervisor(dying, [], shutdown_s=10, tries=lambda: next(tried, ""))
    with pytest.raises(ServiceFailed, match=r"learner was killed by SIGKILL, after 1 restarts"):
        run.run(until(lambda: False), nothing)
    assert "learner was killed by SIGKILL while it tried step 7 with 1 group; starting it again" in caplog.text
    assert caplog.text.count("starting it again") == 4


def test_a_redis_server_that_is_killed_comes_back_with_its_address_and_its_data(
    service: Callable[..., Service], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path / "redis", fsync="always") as server:
        url, first = server.url, server.pid
        connection = RedisConnection(url, deadline_s=30)
        connection.execute("SET", "key", "value")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        run = Supervisor(service("learner", SLEEP), [], shutdown_s=10, redis=server)
        run.run(until(lambda: server.pid != first), nothing)
        assert server.running()
        assert server.url == url
        assert connection.execute("GET", "key") == b"value"
        connection.close()
    assert "the Redis server was killed by SIGKILL; starting it again" in caplog.text


def test_a_redis_server_that_keeps_dying_is_named(
    service: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RESTARTS", 2)

    def kill() -> None:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)

    with RedisServer(tmp_path / "redis") as server:
        run = Supervisor(service("learner", SLEEP), [], shutdown_s=10, redis=server)
        with pytest.raises(ServiceFailed, match=r"the Redis server was killed by SIGKILL, after 2 restarts"):
            run.run(until(lambda: False), kill)
