"""What a run depends on outside its own processes, as metrics: the memory of Redis and the disk of the run folder."""

import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from learner.metrics import DISK_FREE_BYTES, DISK_SIZE_BYTES, REDIS_LIMIT_BYTES, REDIS_USED_BYTES
from services.clock import now_s
from services.errors import RatchetError
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream

log = logging.getLogger("ratchet.learner")

IDLE_S = 3600.0
"""A consumer that has not asked for an entry for so long is gone: each asks every second."""
FORGET_EVERY_S = 600.0


def look_at_redis(connection: RedisConnection) -> None:
    """Set the metrics of the server's memory: to what it says, or to nan while it does not answer."""
    used = limit = math.nan
    try:
        memory = connection.memory()
        used, limit = memory.used_bytes, memory.limit_bytes or math.nan
    except RatchetError as fault:
        log.debug("the memory of Redis is not known: %s", fault)
    REDIS_USED_BYTES.set(used)
    REDIS_LIMIT_BYTES.set(limit)


class IdleConsumers:
    """Has the streams forget consumers whose processes are gone, now and then."""

    def __init__(self, streams: Sequence[RedisStream], idle_s: float = IDLE_S, every_s: float = FORGET_EVERY_S) -> None:
        self._streams = streams
        self._idle_s = idle_s
        self._every_s = every_s
        self._next_s = 0.0  # monotonic

    def look(self) -> None:
        """Forget them, if it is time to."""
        if now_s() < self._next_s:
            return
        self._next_s = now_s() + self._every_s
        try:
            for stream in self._streams:
                stream.forget_idle(self._idle_s)
        except RatchetError as fault:
            log.debug("idle consumers are not forgotten now: %s", fault)


def look_at_disk(folder: Path) -> None:
    """Set the metrics of the disk that `folder` is on: to what it says, or to nan while it does not answer."""
    size = free = math.nan
    try:
        usage = shutil.disk_usage(folder)
        size, free = usage.total, usage.free
    except OSError as fault:
        log.debug("the disk of %s does not answer: %s", folder, fault)
    DISK_SIZE_BYTES.set(size)
    DISK_FREE_BYTES.set(free)
