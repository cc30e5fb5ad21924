"""New prompts wait while the stream server is full; nothing else does, so that what is acknowledged meanwhile makes room."""

import logging
from contextlib import ExitStack

from services.clock import now_s
from services.metrics import waiting
from services.streams.redis_connection import ServerFull

log = logging.getLogger("ratchet.learner")


class Room:
    """Says in one line that the server is full, and in one that it is not any more; shows the time between as a wait."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._shown = ExitStack()

    def refused(self, full: ServerFull) -> None:
        """A prompt was refused. Nobody blocks: the caller tries again at its next look.

        Waits for: memory of the Redis server, which acknowledged groups give back, or a larger maxmemory.
        Until: deadlines.groups_s, if the learner has no groups left to train on.
        Ended by: the first prompt that is admitted.
        Metric: ratchet_waiting{room="learner", awaiting="room in Redis"}.
        """
        if self._since_s is None:
            self._since_s = now_s()
            self._shown.enter_context(waiting("learner", "room in Redis"))
            log.warning("no new prompts go out for now, and all else goes on: %s", full)

    def admitted(self) -> None:
        """A prompt was admitted."""
        if self._since_s is not None:
            log.warning("Redis has room again after %.1f s; prompts go out", now_s() - self._since_s)
            self._since_s = None
            self._shown.close()
