"""Errors raised on purpose. Each says what happened, where, and what to do next."""


class RatchetError(Exception):
    """Base of the errors raised on purpose; the message says what happened, where, and what to do next."""


class InputError(RatchetError):
    """A setting, a dataset line or an argument is wrong; the command ends with exit code 2."""


class WireError(RatchetError):
    """A record on a stream cannot be read: unknown schema, unknown version or damaged bytes."""


class StreamError(RatchetError):
    """The stream server cannot be reached, or refused what was asked."""


class WeightSyncError(RatchetError):
    """Weights did not reach a replica, or the weights it holds are not those that were sent."""


class ServiceFailed(RatchetError):
    """A supervised service ended and may not be started again; the command ends with exit code 3."""


class DeadlineExceeded(RatchetError):
    """A wait outlasted its deadline."""

    def __init__(self, awaiting: str, *, late_s: float) -> None:
        super().__init__(
            f"stopped waiting for {awaiting}, {late_s:.1f} s past its deadline. "
            "Check that it is running; if it is only slow, raise its entry under [deadlines]."
        )
        self.awaiting = awaiting
        self.late_s = late_s
