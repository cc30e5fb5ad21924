"""What a run depends on outside its own processes, as metrics: the memory of Redis and the disk of the run folder."""

import logging
import math
import shutil
from pathlib import Path

from learner.metrics import DISK_FREE_BYTES, DISK_SIZE_BYTES, REDIS_LIMIT_BYTES, REDIS_USED_BYTES
from services.errors import RatchetError
from services.streams.redis_connection import RedisConnection

log = logging.getLogger("ratchet.learner")


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
