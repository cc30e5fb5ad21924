"""Groups that are outstanding and on no stream: the stream server has lost them, and they are issued again."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from learner.intake.collector import Collector
from learner.intake.issuer import PromptIssuer
from learner.intake.ledger import Ledger
from learner.intake.leftovers import groups_on, lost_groups
from learner.run_state import RunState
from services.clock import now_s
from services.numbers import count
from services.run.settled import SettledLog
from services.streams import Stream
from services.streams.redis_connection import ServerFull

log = logging.getLogger("ratchet.learner")

COUNT_EVERY_S = 5.0
"""How often outstanding groups are compared with what is on the streams, while the learner waits for groups."""


class LostGroups:
    """Part of the intake, which calls it under its lock, or while nothing is gathered ahead."""

    def __init__(
        self,
        state: RunState,
        ledger: Ledger,
        issuer: PromptIssuer,
        collector: Collector,
        streams: Sequence[Stream],
        record: SettledLog | None,
    ) -> None:
        """See Intake."""
        self._state = state
        self._ledger = ledger
        self._issuer = issuer
        self._collector = collector
        self._streams = streams
        self._record = record
        self._next_count_s = 0.0  # monotonic
        self._missing_before = False

    def restore(self) -> None:
        """Issue again what the checkpoint knows as issued and not settled, or an earlier start issued after it, and is on no
        stream: the server has lost it, or a later lineage had settled it."""
        self._issuer.catch_up(partial(groups_on, self._streams), self._state.policy_version)
        issued = max(self._state.issued, self._issuer.issued_count())
        lost = lost_groups(self._ledger, issued, self._streams)
        if lost:
            log.warning("%s groups that no checkpoint holds are on no stream, and are issued again", count(len(lost)))
        self._state.issued = issued
        with suppress(ServerFull):  # the next look finds that the server counts too few, or that some are on no stream
            self._issuer.issue_again(lost, issued)

    def issue_again(self, why: str) -> None:
        """Issue again what is neither settled, nor on a stream, nor in this process's memory. Raises ServerFull."""
        issued = self._state.issued
        in_hand = self._collector.in_hand
        lost = [number for number in lost_groups(self._ledger, issued, self._streams) if number not in in_hand]
        self._issuer.issue_again(lost, issued)
        if self._record is not None:
            self._record.emptied(self._ledger.take_events(), issued_again=len(lost), held=in_hand)
        log.warning("%s; %s groups are issued again", why, count(len(lost)))

    def look(self) -> None:
        """Compare what is outstanding with what is on the streams, every few seconds of waiting: entries may have been deleted.

        Twice in a row, because a group that has just died may be counted on neither side.
        """
        if now_s() < self._next_count_s:
            return
        self._next_count_s = now_s() + COUNT_EVERY_S
        depths = [stream.depth() for stream in self._streams]
        on_streams = sum(depth.waiting + depth.pending for depth in depths) - self._collector.claims_held
        expected = self._ledger.outstanding(self._state.issued) - len(self._collector.in_hand)
        missing = expected > on_streams
        is_second = missing and self._missing_before
        self._missing_before = missing and not is_second
        if is_second:
            with suppress(ServerFull):
                self.issue_again("entries are gone from the streams")
