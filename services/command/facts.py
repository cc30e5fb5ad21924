"""Gathers what is known of a run, for diagnosis.py: from its files, its Redis server and its services."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from services import cause, entry
from services.command.diagnosis import Facts
from services.command.run_lock import is_held
from services.command.scrape import scrape
from services.command.service_warnings import LEVELS, LINE
from services.config import RunConfig
from services.errors import RatchetError, WireError
from services.run.addresses import addresses
from services.run.folder import RunFolder
from services.run.history import open_run
from services.run.json_lines import read_json_lines
from services.run.summary import newest
from services.run.waiting import read_waiting
from services.streams.names import ALL, DEAD
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream
from services.weights.membership import Membership
from services.wire.codec import decode
from services.wire.score import DeadGroup

RECENT_S = 900.0
"""Warnings of a log that are older than this say nothing of now."""
LOG_BYTES = 2**18
"""How much of the end of a log is read."""
STEPS = 10
DEAD_READ = 100
ANSWER_S = 3.0


def url_of(config: RunConfig, folder: RunFolder) -> str | None:
    """The address of the run's Redis server; None: it has none now."""
    own = folder.redis_url
    return own.read_text(encoding="utf-8") if own.exists() else entry.redis_url(config)


def live_url(config: RunConfig, folder: RunFolder) -> str | None:
    """As `url_of`, without the address of a server of the run's own that ended with a `ratchet up` that was killed."""
    return None if folder.redis_url.exists() and not is_held(folder) else url_of(config, folder)


def gather(path: Path) -> Facts:
    """The facts of the run in this folder. Raises InputError if there is no run in it."""
    config, folder = open_run(path)
    now = time.time()
    steps = newest(read_json_lines(folder.steps), "step")
    waiting = read_waiting(folder.waiting)
    if waiting is not None and steps and waiting.step <= steps[-1]["step"]:
        waiting = None
    known: dict[str, Any] = {
        "left": {
            file.name.removeprefix(".").removesuffix(".cause"): left
            for file in sorted(folder.logs.glob(".*.cause"))
            if (left := cause.found(file)) is not None
        },
        "said": list(recent_warnings(folder.logs, now)),
        "expected_replicas": config.rollout.replica_count,
        "verifier_url": config.verifier.url,
        "waiting": waiting,
        "steps": steps[-STEPS:],
        "steps_wanted": config.learner.steps,
        "step_age_s": now - steps[-1]["at_unix_s"] if steps else None,
    }
    url = live_url(config, folder)
    if url is not None:
        known |= _asked(url, config.name)
    if known.get("is_running"):
        known["announced"] = scrape(addresses(folder.services))
    return Facts(**known)


def _asked(url: str, run: str) -> dict[str, Any]:
    """What the run's Redis server says.

    Waits for: the run's Redis server.
    Until: 3 s (ANSWER_S) for each command.
    Ended by: its answer, or the deadline, which becomes a fact.
    Metric: none; a command serves none.
    """
    connection = RedisConnection(url, deadline_s=ANSWER_S)
    try:
        connection.check()
        streams = {name: RedisStream(connection, run, name, "status", 1e8) for name in ALL}
        memory = _fields(connection.execute("INFO", "memory"))
        return {
            "is_running": True,
            "redis_memory": (int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))),
            "depths": {name: stream.depth() for name, stream in streams.items()},
            "dead_causes": [_cause_of(payload) for payload in streams[DEAD].peek(DEAD_READ)],
            "ready": {
                lease.replica_id: lease.ready for lease in Membership(connection, run, lease_s=15.0).live().values()
            },
        }
    except RatchetError as fault:
        return {"redis_fault": str(fault)}
    finally:
        connection.close()


def _fields(info: Any) -> dict[str, str]:
    text = info.decode() if isinstance(info, bytes) else str(info)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _cause_of(payload: bytes) -> str:
    try:
        dead = decode(payload, DeadGroup)
    except WireError as fault:
        return str(fault)
    return f"{dead.stage}: {dead.cause}"


def recent_warnings(logs: Path, now_unix_s: float) -> Iterator[tuple[str, str]]:
    """(service, message), of warnings and errors of the last minutes, each log in its order."""
    for path in sorted(logs.glob("*.log")):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
        for line in text.splitlines():
            found = _record(line)
            if found is not None and found[0] >= now_unix_s - RECENT_S and found[1] in LEVELS:
                yield path.stem, found[2]


def _record(line: str) -> tuple[float, str, str] | None:
    """Time, level and message of the line of a log; None for one that is not the beginning of a record."""
    try:
        if begins := LINE.match(line):
            return datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S").timestamp(), begins["level"], begins["message"]
        if line.startswith('{"time": '):
            record = json.loads(line)
            return datetime.fromisoformat(record["time"]).timestamp(), record["level"], record["message"]
    except (ValueError, KeyError):
        pass  # a line of a library that only looks like one of ours
    return None
