"""The replica as a process, around an engine that hangs or a fake one: it ends when it has to, and owes nothing then."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.entry import DONE, FAILED, INTERRUPTED, REDIS_URL_VARIABLE
from services.streams.names import PROMPTS
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.weights.membership import Membership
from services.wire.codec import encode
from services.wire.weights import Gap, Probe, Rendezvous, WeightManifest
from tests.rollout.test_loop import prompt
from tests.services.config.test_load import SMALLEST

ROOT = Path(__file__).parents[2]
HANGING = """
import time
from functools import partial
from rollout.__main__ import main
from rollout.vllm.engine import VllmEngine
from services.entry import end

def hang(config):
    print("loading", flush=True)
    time.sleep(600)

end(lambda: main(partial(VllmEngine, launch=hang)))
"""
FAKE = """
from rollout.__main__ import main
from services.entry import end
from tests.fakes.engine import FakeEngine
end(lambda: main(lambda config: FakeEngine(seconds_per_group=600)))
"""
REPLICA = "rollout-0"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Start:
    (tmp_path / "run.toml").write_text(SMALLEST, encoding="utf-8")
    monkeypatch.setenv(REDIS_URL_VARIABLE, redis_url)

    def start(program: str, *overrides: str) -> "subprocess.Popen[str]":
        options = [part for override in overrides for part in ("--set", override)]
        return subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "run.toml"), "--replica-id", REPLICA, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    return start


def ending(replica: "subprocess.Popen[str]", within_s: float = 10.0) -> tuple[int, str]:
    """The exit code and what it said."""
    try:
        said = replica.communicate(timeout=within_s)[1]
    finally:
        replica.kill()
        replica.communicate()
    return replica.returncode, said


def loading(replica: "subprocess.Popen[str]") -> None:
    assert replica.stdout is not None
    assert replica.stdout.readline() == "loading\n"


def test_an_engine_that_hangs_while_starting_ends_the_replica_at_the_deadline(start: Start) -> None:
    replica = start(HANGING, "deadlines.engine_start_s=0.5")
    loading(replica)
    code, said = ending(replica)
    assert code == FAILED
    assert "stopped waiting for the inference engine to start" in said


def test_a_replica_asked_to_stop_while_its_engine_starts_does(start: Start) -> None:
    replica = start(HANGING)
    loading(replica)
    replica.send_signal(signal.SIGTERM)
    assert ending(replica)[0] == INTERRUPTED


def test_a_replica_that_is_stopped_gives_its_prompts_back(start: Start, redis_connection: RedisConnection) -> None:
    run = "replica-stopped"
    membership = Membership(redis_connection, run, lease_s=15.0)
    issued = RedisIssueLog(redis_connection, RedisStream(redis_connection, run, PROMPTS, "learner", 1e8))
    replica = start(FAKE, f"name={run}")

    def becomes(condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 60
        while not condition():
            assert replica.poll() is None, replica.communicate()
            assert time.monotonic() < end_s
            time.sleep(0.05)

    becomes(lambda: REPLICA in membership.live())
    membership.announce(
        Rendezvous(pg_generation=1, backend="gloo", host="", port=1, size=2, first_ranks={REPLICA: 1}, timeout_s=5.0)
    )
    membership.announce(
        WeightManifest(
            policy_version=0, pg_generation=1, buckets=(), probes=(Probe((1, 2), (-1.0,)),), bound=Gap(1e-3, 1e-3, 1e-3)
        )
    )
    assert issued.issue(0, encode(prompt(0)))
    stream = RedisStream(redis_connection, run, PROMPTS, "rollout-1", 60.0)
    becomes(lambda: stream.depth().pending == 1)
    replica.send_signal(signal.SIGTERM)
    assert ending(replica)[0] == DONE
    (claim,) = stream.claim(1, 0.0)
    assert claim.deliveries == 1
