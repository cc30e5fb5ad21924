"""What only a real server can show: lost connections, killed processes, and a server that comes back."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from services.command.redis_server import RedisServer
from services.streams import StreamDepth
from services.streams.redis_connection import CommandRefused, RedisConnection, ServerFull
from services.streams.redis_stream import ISSUED, OTHER_COUNTERS_S, RedisIssueLog, RedisStream
from services.streams.stream import NEVER_SUSPECT, SUSPECT_DELIVERIES
from tests.fakes.cable import Cable

WORKER = """
import sys
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream

url, source, target, consumer = sys.argv[1:]
connection = RedisConnection(url, deadline_s=20)
stream, to = (RedisStream(connection, "kill", name, consumer, 0.3) for name in (source, target))
print("ready", flush=True)
while True:
    for claim in stream.claim(3, 0.5):
        stream.hand_over(claim, to, claim.payload)
"""


def fill(connection: RedisConnection, stream: RedisStream, count: int) -> list[bytes]:
    log, payloads = RedisIssueLog(connection, stream), [f"{i:04}".encode() for i in range(count)]
    for i, payload in enumerate(payloads):
        log.issue(i, payload)
    return payloads


def test_killed_processes_and_a_killed_server_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    rng = random.Random(7)
    with RedisServer(tmp_path, fsync="always") as server:
        connection = RedisConnection(server.url, deadline_s=20)
        prompts, trajectories, scored = (
            RedisStream(connection, "kill", name, "test", 0.3) for name in ("prompts", "trajectories", "scored")
        )
        payloads = fill(connection, prompts, 600)
        lanes = [("prompts", "trajectories"), ("trajectories", "scored")] * 2
        workers = [start_worker(server.url, lane, f"w{i}") for i, lane in enumerate(lanes)]
        try:
            for round_ in range(6):
                time.sleep(0.15)
                victim = rng.randrange(len(workers))
                end(workers[victim])
                workers[victim] = start_worker(
                    server.url, lanes[victim], f"w{victim}" if round_ % 2 else f"heir{round_}"
                )
                if round_ == 3:
                    assert server.pid is not None
                    os.kill(server.pid, signal.SIGKILL)
                    time.sleep(0.2)
                    server.start()
            end_s = time.monotonic() + 30
            while prompts.depth() != StreamDepth(0, 0) or trajectories.depth() != StreamDepth(0, 0):
                assert time.monotonic() < end_s, (prompts.depth(), trajectories.depth(), scored.depth())
                time.sleep(0.1)
            assert sorted(scored.peek(9999)) == payloads
        finally:
            for worker in workers:
                end(worker)
            connection.close()


def start_worker(url: str, lane: tuple[str, str], consumer: str) -> "subprocess.Popen[bytes]":
    worker = subprocess.Popen([sys.executable, "-c", WORKER, url, *lane, consumer], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    return worker


def end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.communicate()


def test_competing_threads_on_one_connection(redis_connection: RedisConnection) -> None:
    source, target = (
        RedisStream(redis_connection, "threads", name, "test", 60) for name in ("prompts", "trajectories")
    )
    payloads = fill(redis_connection, source, 300)
    moved: list[bytes] = []

    def work(consumer: str) -> None:
        stream = RedisStream(redis_connection, "threads", "prompts", consumer, 60)
        while claims := stream.claim(4, 0.05):
            stream.renew(claims)
            done = stream.hand_over_many([(claim, claim.payload) for claim in claims], target)
            moved.extend(claim.payload for claim, owed in zip(claims, done, strict=True) if owed)

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(moved) == sorted(target.peek(999)) == payloads


@pytest.mark.parametrize("held", [0, 3])
def test_what_was_delivered_into_a_lost_connection_is_found_again(
    redis_url: str, redis_connection: RedisConnection, held: int
) -> None:
    parts = urlsplit(redis_url)
    with Cable(unquote(parts.path)) as cable:
        connection = RedisConnection(f"redis://:{parts.password}@127.0.0.1:{cable.port}/0", deadline_s=10)
        stream = RedisStream(connection, f"lost-{held}", "prompts", "a", 60)
        assert stream.claim(1, 0) == []
        fill(redis_connection, stream, held + 2)
        if held:
            assert len(stream.claim(held, 0)) == held
        cable.lose_answer(after=1)  # the script's answer comes, and the new entries do not: they count as delivered
        assert stream.claim(9, 0) == []
        again = stream.claim(9, 0)
        connection.close()
    assert [(claim.payload, claim.deliveries) for claim in again] == [(b"%04d" % n, 2) for n in (held, held + 1)]


def test_a_waiting_claim_outlives_its_connection(redis_url: str, redis_connection: RedisConnection) -> None:
    connection = RedisConnection(redis_url, deadline_s=10)
    stream = RedisStream(connection, "cut", "prompts", "a", 60)
    claims = []
    waiting = threading.Thread(target=lambda: claims.extend(stream.claim(1, 20)))
    waiting.start()
    for _ in range(3):
        time.sleep(0.1)
        redis_connection.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    fill(redis_connection, stream, 1)
    waiting.join(10)
    assert [claim.payload for claim in claims] == [b"0000"]
    connection.close()


def test_a_waiting_claim_outlives_a_restart_and_an_emptied_server(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        connection = RedisConnection(server.url, deadline_s=10)
        stream = RedisStream(connection, "r", "prompts", "a", 60)
        claims = []
        waiting = threading.Thread(target=lambda: claims.extend(stream.claim(1, 20)))
        waiting.start()
        time.sleep(0.2)
        server.stop()
        server.start()
        connection.execute("FLUSHALL")
        fill(connection, stream, 1)
        waiting.join(10)
        assert [claim.payload for claim in claims] == [b"0000"]
        connection.close()


def test_entries_deleted_by_hand_are_passed_over(redis_connection: RedisConnection) -> None:
    before = RedisStream(redis_connection, "deleted", "prompts", "a", 60)
    fill(redis_connection, before, 2)
    gone, left = before.claim(2, 0)
    redis_connection.execute("XDEL", before.key, gone.entry_id)
    after = RedisStream(redis_connection, "deleted", "prompts", "a", 60)
    assert [claim.entry_id for claim in after.claim(2, 0)] == [left.entry_id]
    assert after.depth() == StreamDepth(waiting=0, pending=1)


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_target_of_another_kind_leaves_the_claim_alone(redis_connection: RedisConnection, size: int) -> None:
    run = f"kind-{size}"
    source, target = (RedisStream(redis_connection, run, name, "a", 60) for name in ("prompts", "trajectories"))
    fill(redis_connection, source, 1)
    redis_connection.execute("SET", target.key, "a string")
    [claim] = source.claim(1, 0)
    with pytest.raises(CommandRefused, match=r"not a stream|wrong kind"):
        source.hand_over(claim, target, b"x" * size)
    assert source.depth() == StreamDepth(waiting=0, pending=1)


@pytest.mark.parametrize("sizes", [(4, 4), (100_000, 100_000)])
def test_a_full_server_refuses_new_entries_and_lets_old_ones_move_on(tmp_path: Path, sizes: tuple[int, int]) -> None:
    with RedisServer(tmp_path) as server:
        connection = RedisConnection(server.url, deadline_s=1)
        source, target = (RedisStream(connection, "full", name, "a", 60) for name in ("prompts", "trajectories"))
        fill(connection, source, 2)
        assert target.claim(1, 0) == []
        held = source.claim(1, 0)
        connection.execute("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(ServerFull, match="raise maxmemory"):
            RedisIssueLog(connection, source).issue(2, b"more")
        assert RedisStream(connection, "full", "scored", "a", 60).claim(1, 0) == []  # nobody has claimed from it before
        held += source.claim(1, 0)
        assert source.hand_over_many(
            [(claim, b"x" * size) for claim, size in zip(held, sizes, strict=True)], target
        ) == [True, True]
        assert target.acknowledge(target.claim(2, 0)) == 2
        connection.close()


def test_the_counter_of_an_evaluation_goes_by_itself_and_that_of_the_run_stays(
    redis_connection: RedisConnection,
) -> None:
    stream = RedisStream(redis_connection, "counters", "prompts", "a", 60)
    for counter in (ISSUED, "issued-1-40"):
        RedisIssueLog(redis_connection, stream, counter).issue(0, b"x")
    assert redis_connection.execute("TTL", f"{stream.key}:{ISSUED}") == -1
    assert 0 < redis_connection.execute("TTL", f"{stream.key}:issued-1-40") <= OTHER_COUNTERS_S


def test_consumers_that_are_gone_are_forgotten_and_those_that_hold_something_are_not(
    redis_connection: RedisConnection,
) -> None:
    def consumers() -> set[bytes]:
        rows = redis_connection.execute("XINFO", "CONSUMERS", "ratchet:forget:prompts", "workers")
        return {row[1] for row in rows}

    gone, holds, stays = (RedisStream(redis_connection, "forget", "prompts", each, 60) for each in ("a", "b", "c"))
    assert gone.forget_idle(0.0) == 0  # there is no stream yet
    fill(redis_connection, stays, 3)
    gone.acknowledge(gone.claim(1, 0))
    claims = holds.claim(1, 0)
    time.sleep(0.3)
    stays.acknowledge(stays.claim(1, 0))
    assert consumers() == {b"a", b"b", b"c"}
    assert stays.forget_idle(0.25) == 1
    assert consumers() == {b"b", b"c"}
    assert stays.depth() == StreamDepth(0, 1)
    assert holds.acknowledge(claims) == 1
    RedisIssueLog(redis_connection, gone).issue_again(b"new")
    assert [claim.payload for claim in gone.claim(1, 0)] == [b"new"]  # it is known again


@pytest.mark.parametrize("starts", [2, 3, 5])
def test_a_learner_gets_all_its_groups_again_however_often_it_was_killed(
    redis_connection: RedisConnection, starts: int
) -> None:
    def claimed(suspect_deliveries: int) -> list[bytes]:
        stream = RedisStream(redis_connection, "again", "scored", "learner", 1e8, suspect_deliveries=suspect_deliveries)
        return [claim.payload for claim in stream.claim(4, 0.0)]

    payloads = fill(redis_connection, RedisStream(redis_connection, "again", "scored", "learner", 1e8), 4)
    for _ in range(starts):
        assert claimed(NEVER_SUSPECT) == payloads
    if starts > 2:
        assert len(claimed(SUSPECT_DELIVERIES)) == 1  # that of a worker, which hands each over by itself
