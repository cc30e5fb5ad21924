"""Who keeps the others waiting, and when the wait for them ends. Facts and the time come in, a verdict goes out."""

from collections.abc import Collection

LATE_S = 0.5
"""How far a member that has also missed a renewal of its lease may be behind half of the others."""
HELD_UP_S = 2.0
"""How long those that are there may take to answer once another member is gone; that member may hold them up."""
AS_USUAL = 1.5
"""The same, where it is known how long such questions take: this many times as long as the slowest of the last ones."""


class Stragglers:
    """One question to some members. The time of those who are late begins once half of the members have answered."""

    def __init__(
        self, members: Collection[str], patience_s: float, *, asked_s: float = 0.0, usual_s: float | None = None
    ) -> None:
        """patience_s: deadlines.weight_patience_s. asked_s: when the question was put. usual_s: how long it took until all had
        answered the last questions of this kind; None where that is not known."""
        self._members = frozenset(members)
        self._patience_s = patience_s
        self._overdue_s = None if usual_s is None else asked_s + AS_USUAL * usual_s + LATE_S
        self._answered: set[str] = set()
        self._half_at_s: float | None = None
        self._gone_since_s: float | None = None

    def answered(self, replica_id: str, at_s: float) -> None:
        """This member has done what was asked."""
        self._answered.add(replica_id)
        if self._half_at_s is None and 2 * len(self._answered) >= len(self._members):
            self._half_at_s = at_s

    @property
    def silent(self) -> set[str]:
        """The members that have not answered."""
        return set(self._members - self._answered)

    def to_leave_behind(self, gone: Collection[str], quiet: Collection[str], at_s: float) -> set[str]:
        """The members that nobody waits for any longer: all that are silent, or none. gone: those whose lease has run out.
        quiet: those that have missed a renewal of it: they are suspended or cut off, or their host is very busy.

        That is so when all others have answered or patience with the others has run out too; with those that are quiet it runs
        out after LATE_S. Where those that are gone or quiet hold the others up, so that less than half can answer, it is so once
        the question takes longer than usual (else HELD_UP_S after they went), and only they are named.
        """
        silent, missing = self.silent, self.silent & set(gone)
        if not silent or silent == missing:
            return silent
        behind_s = None if self._half_at_s is None else at_s - self._half_at_s
        absent = missing | (silent & set(quiet))
        if behind_s is not None and behind_s > (LATE_S if silent == absent else self._patience_s):
            return silent
        if absent == self._members:  # nobody renews: that is the server's fault, and not theirs
            absent = missing
        if not absent:
            self._gone_since_s = None
            return set()
        if self._gone_since_s is None:
            self._gone_since_s = at_s
        overdue_s = self._overdue_s
        if overdue_s is None:
            overdue_s = self._gone_since_s + min(self._patience_s, HELD_UP_S)
        return absent if at_s > overdue_s else set()
