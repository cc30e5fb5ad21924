"""A bounded store of small values in Redis, for services that would otherwise work the same thing out twice.

There are two hashes, a young and an old one. New values go into the young one; when it holds half of what is allowed, it
becomes the old one, and the former old one is deleted. So every value that was put or found among the last half is there,
without a clock or a list of what was used when. Losing all of it costs time and nothing else.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from services.clock import now_s
from services.errors import StreamError
from services.streams.redis_connection import RedisConnection

log = logging.getLogger("ratchet")

# KEYS young old. ARGV: keys. A value found only in the old hash is copied into the young one. May run twice.
GET = """
local found = redis.call('HMGET', KEYS[1], unpack(ARGV))
for i, key in ipairs(ARGV) do
  if not found[i] then
    local old = redis.call('HGET', KEYS[2], key)
    if old then
      redis.call('HSET', KEYS[1], key, old)
      found[i] = old
    end
  end
end
return found
"""
# KEYS young old. ARGV: half of what is allowed, then key, value, key, value, ... May run twice.
PUT = """
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    redis.call('RENAME', KEYS[1], KEYS[2])
  end
end
return 1
"""
PAUSE_S = 10.0  # after a fault
AT_ONCE = 1000  # Lua's unpack has a limit of its own


class RedisStore:
    """Holds at most max_entries values, and at least the last max_entries / 2 that were put or found."""

    def __init__(self, connection: RedisConnection, run: str, name: str, max_entries: int) -> None:
        """connection: one with a short deadline, because callers can go on without the cache."""
        self._connection = connection
        self._half = max(1, max_entries // 2)
        self._keys = [f"ratchet:{run}:{name}:young", f"ratchet:{run}:{name}:old"]
        self._away_until_s = 0.0  # monotonic seconds

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key; None for those that are not there, and for all of them while the server is away."""
        found: list[bytes | None] = []
        for at in range(0, len(keys), AT_ONCE):
            found += await self._run(GET, keys[at : at + AT_ONCE]) or []
        return found if len(found) == len(keys) else [None] * len(keys)

    async def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Keep these values; while the server is away they are not kept."""
        pairs = [field for pair in values.items() for field in pair]
        for at in range(0, len(pairs), 2 * AT_ONCE):
            await self._run(PUT, [self._half, *pairs[at : at + 2 * AT_ONCE]])

    async def _run(self, script: str, arguments: Sequence[bytes | int]) -> Any:
        """The script's answer; None while the server is away."""
        if now_s() < self._away_until_s:
            return None
        try:
            return await asyncio.to_thread(self._connection.run_script, script, self._keys, arguments)
        except StreamError as fault:
            self._away_until_s = now_s() + PAUSE_S
            log.warning("going on without the cache for %g s: %s", PAUSE_S, fault)
            return None
