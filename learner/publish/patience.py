"""How long the learner goes on without a replica that takes its weights. Facts and the time come in; at the end it raises."""

from services.errors import DeadlineExceeded, WeightSyncError


class Patience:
    """The time without a replica begins at the start, when the last replica leaves, or at a failed broadcast; a confirmed
    broadcast ends it, and so does a live replica if no broadcast has failed since the last confirmed one."""

    def __init__(self, longest_s: float, now_s: float) -> None:
        """longest_s: deadlines.first_replica_s."""
        self.longest_s = longest_s
        self._without_since_s: float | None = now_s
        self._last_failure: Exception | None = None
        """The last failed broadcast since one was confirmed."""

    @property
    def has_begun(self) -> bool:
        """Whether the learner is without a replica that takes its weights."""
        return self._without_since_s is not None

    def replica_is_live(self) -> None:
        """At least one replica is live and not left out."""
        if self._last_failure is None:
            self._without_since_s = None

    def confirmed(self) -> None:
        """Every member of the group has confirmed a version."""
        self._last_failure = None
        self._without_since_s = None

    def failed(self, cause: Exception, now_s: float) -> None:
        """A broadcast, or forming a group for one, has failed. Raises as `without_replica` does."""
        self._last_failure = cause
        self.without_replica(now_s)

    def without_replica(self, now_s: float) -> None:
        """No replica can take the weights now. Raises once this has lasted longest_s: WeightSyncError with the last failure,
        or DeadlineExceeded when no replica has registered."""
        if self._without_since_s is None:
            self._without_since_s = now_s
        without_s = now_s - self._without_since_s
        if without_s <= self.longest_s:
            return
        if self._last_failure is None:
            raise DeadlineExceeded("a rollout replica to register", late_s=without_s - self.longest_s)
        raise WeightSyncError(
            f"no replica has taken the weights for {without_s:.0f} s (deadlines.first_replica_s); last: {self._last_failure}"
        )
