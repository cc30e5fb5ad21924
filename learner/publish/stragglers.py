"""Who keeps the others waiting, and when the wait for them ends. Facts and the time come in, a verdict goes out."""

from collections.abc import Collection


class Stragglers:
    """One question to some members. The time of those who are late begins once half of the members have answered."""

    def __init__(self, members: Collection[str], patience_s: float) -> None:
        """patience_s: deadlines.weight_patience_s."""
        self._members = frozenset(members)
        self._patience_s = patience_s
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

    def to_leave_behind(self, gone: Collection[str], at_s: float) -> set[str]:
        """The members that nobody waits for any longer: all that are silent, or none. gone: those whose lease has run out.

        That is so when all others have answered or patience with the others has run out too. Where those that are gone hold the
        others up, so that less than half can answer, it is so after the same patience, and only those that are gone are named.
        """
        silent, missing = self.silent, self.silent & set(gone)
        if not silent or silent == missing:
            return silent
        if self._half_at_s is not None and at_s - self._half_at_s > self._patience_s:
            return silent
        if not missing:
            self._gone_since_s = None
            return set()
        if self._gone_since_s is None:
            self._gone_since_s = at_s
        return missing if at_s - self._gone_since_s > min(self._patience_s, HELD_UP_S) else set()


HELD_UP_S = 2.0
"""How long those that are there may take to answer once another member is gone; that member may hold them up."""
