"""Claiming and handing over on a real Redis, against bare commands on the same server.

python -m benchmarks.redis_streams --out build/redis_streams.json

A round moves groups from one stream to the next, by 32: claim them, hand them over. `bare` does what a program without promises
would: XREADGROUP, then XACK, XADD and XDEL in a pipeline, by redis-py alone. Both take turns on one server, without a file that
is appended to. Ratios are bare over ours, the median over the rounds: of seconds, and of processor time of server and client
together, which other programs change less. Filling the stream is not timed.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from benchmarks.machine import machine
from services.command.redis_server import RedisServer
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream

BATCH = 32
SIZES = {8: 2048, 64: 512, 512: 128}
"""KiB of a group -> groups of a round."""


class Bench:
    def __init__(self, server: RedisServer, groups: int, payload: bytes) -> None:
        self._groups = groups
        self._payload = payload
        self._connection = RedisConnection(server.url)
        self._bare = redis.Redis.from_url(server.url)
        self._connection.execute("CONFIG", "SET", "appendonly", "no")  # else it is the disk that is measured

    def fill(self, run: str) -> None:
        self._connection.execute("DEL", f"ratchet:{run}:a", f"ratchet:{run}:b", f"ratchet:{run}:a:issued")
        stream = RedisStream(self._connection, run, "a", "bench", 60.0)
        log = RedisIssueLog(self._connection, stream)
        stream.claim(1, 0.0)  # makes the consumer group
        for number in range(self._groups):
            log.issue(number, self._payload)

    def ours(self) -> None:
        source, target = (RedisStream(self._connection, "ours", name, "bench", 60.0) for name in "ab")
        left = self._groups
        while left:
            claims = source.claim(BATCH, 0.0)
            assert all(source.hand_over_many([(claim, self._payload) for claim in claims], target))
            left -= len(claims)

    def bare(self) -> None:
        left = self._groups
        while left:
            answer: Any = self._bare.xreadgroup("workers", "bench", {"ratchet:bare:a": ">"}, count=BATCH)
            entries = answer[0][1]
            with self._bare.pipeline(transaction=False) as pipe:
                for entry_id, _ in entries:
                    pipe.xack("ratchet:bare:a", "workers", entry_id)
                    pipe.xadd("ratchet:bare:b", {"p": self._payload})
                    pipe.xdel("ratchet:bare:a", entry_id)
                pipe.execute()
            left -= len(entries)

    def cpu_s(self) -> float:
        """Processor seconds of the server and of this process so far."""
        info = self._bare.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"]) + time.process_time()

    def close(self) -> None:
        self._connection.close()
        self._bare.close()


def measure(rounds: int) -> list[dict[str, float]]:
    """A row for each size."""
    rows = []
    for kib, groups in SIZES.items():
        with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
            bench = Bench(server, groups, b"x" * 1024 * kib)
            seconds: dict[str, list[float]] = {"ours": [], "bare": []}
            cpu: dict[str, list[float]] = {"ours": [], "bare": []}
            sides: dict[str, Callable[[], None]] = {"ours": bench.ours, "bare": bench.bare}
            for number in range(rounds + 1):
                for run in sorted(sides, reverse=bool(number % 2)):
                    bench.fill(run)
                    begun_cpu_s, begun_s = bench.cpu_s(), time.perf_counter()
                    sides[run]()
                    if number:  # the first round is for warming up
                        seconds[run].append(time.perf_counter() - begun_s)
                        cpu[run].append(bench.cpu_s() - begun_cpu_s)
            bench.close()
        ratios = [bare / ours for ours, bare in zip(seconds["ours"], seconds["bare"], strict=True)]
        rows.append(
            {
                "kib": kib,
                "ours_per_s": groups / statistics.median(seconds["ours"]),
                "bare_per_s": groups / statistics.median(seconds["bare"]),
                "ratio": statistics.median(ratios),
                "ratio_worst": min(ratios),
                "cpu_ratio": statistics.median(cpu["bare"]) / statistics.median(cpu["ours"]),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each size (default: 7)")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    rows = measure(arguments.rounds)
    print("KiB    ours/s    bare/s   ratio   worst     cpu")
    for row in rows:
        rates = f"{row['kib']:>3} {row['ours_per_s']:>9,.0f} {row['bare_per_s']:>9,.0f}"
        print(f"{rates} {row['ratio']:>7.2f} {row['ratio_worst']:>7.2f} {row['cpu_ratio']:>7.2f}")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(["redis"]), "batch": BATCH, "rows": rows}
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
