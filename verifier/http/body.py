"""Reading the body of a request without holding more of it than is allowed."""

from fastapi import Request

DRAINED_BODIES = 4  # of a body that is too large, this many times the limit are read before the connection is closed


async def read_body(request: Request, limit_bytes: int) -> bytearray | None:
    """The body; None when it is larger than the limit, by its own account or in fact.

    Some of a body that is too large is read all the same: a client whose connection closes while it writes sees a broken
    pipe and not the answer that says why.

    Waits for: the client to send.
    Until: verifier.read_deadline_s, which the caller sets.
    Ended by: the end of the body, too much of it, the deadline, or the client's disconnect.
    Metric: none; a client that sends slowly holds nothing but its own connection.
    """
    body, received = bytearray(), 0
    too_large = int(request.headers.get("content-length", 0)) > limit_bytes
    async for part in request.stream():
        received += len(part)
        too_large = too_large or received > limit_bytes
        if not too_large:
            body += part
        elif received > DRAINED_BODIES * limit_bytes:
            break
    return None if too_large else body
