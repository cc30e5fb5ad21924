"""What is in a real stream, for tests to look at without claiming it."""

from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream


def peek(connection: RedisConnection, stream: RedisStream, count: int) -> list[bytes]:
    """The oldest payloads, waiting or pending."""
    rows = connection.execute("XRANGE", stream.key, "-", "+", "COUNT", count)
    return [fields[1] for _, fields in rows]
