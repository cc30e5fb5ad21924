"""How much is on each stream and since when, as metrics: the first thing to look at when a run is slow."""

import logging
import math
import threading
from collections.abc import Callable, Sequence

from services.errors import StreamError
from services.metrics import STREAM_OLDEST_SECONDS, STREAM_PENDING, STREAM_WAITING
from services.streams import Stream
from services.streams.names import SCORED

log = logging.getLogger("ratchet.learner")

LOOK_EVERY_S = 5.0


class StreamDepths:
    """Looks at the streams every few seconds on a thread of its own, so that the training loop is never held up.

    While the stream server does not answer, the depths are nan: the last known ones may be wrong.
    """

    def __init__(
        self, streams: Sequence[Stream], every_s: float = LOOK_EVERY_S, *, also: Sequence[Callable[[], None]] = ()
    ) -> None:
        """also: what else is looked at in each turn (learner/surroundings.py)."""
        self._streams = streams
        self._also = also
        self._every_s = every_s
        self._closing = threading.Event()
        self.latest: dict[str, int] = {}
        """Stream -> entries that had not got beyond it at the last look, claimed ones included but for `scored`: there the
        learner holds the claims of what it has trained on until a checkpoint has it. Without streams that could not be asked."""
        threading.Thread(target=self._run, name="stream-depths", daemon=True).start()

    def close(self) -> None:
        """Stop looking. Does not wait for a look in progress, which changes nothing but the metrics."""
        self._closing.set()

    def _run(self) -> None:
        while True:
            for stream in self._streams:
                self._look(stream)
            for look in self._also:
                look()
            if self._closing.wait(self._every_s):
                return

    def _look(self, stream: Stream) -> None:
        waiting: float = math.nan
        pending: float = math.nan
        oldest_age_s = math.nan
        try:
            depth = stream.depth()
            waiting, pending, oldest_age_s = depth.waiting, depth.pending, depth.oldest_age_s
            self.latest[stream.name] = depth.waiting + (0 if stream.name == SCORED else depth.pending)
        except StreamError as fault:
            self.latest.pop(stream.name, None)
            log.debug("the depth of %s is not known: %s", stream.name, fault)
        STREAM_WAITING.labels(stream.name).set(waiting)
        STREAM_PENDING.labels(stream.name).set(pending)
        STREAM_OLDEST_SECONDS.labels(stream.name).set(oldest_age_s)
