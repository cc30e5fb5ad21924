"""Errors raised on purpose. Each says what happened, where, and what to do next."""

from typing import ClassVar, Literal

Retry = Literal["never", "once", "often"]
"""Whether a service that ended by an error is started again. never: the next start would end in the same way. once: not if
it ends by the same error again. often: the error is an outage of something else, which may last a while."""


class RatchetError(Exception):
    """Base of the errors raised on purpose; the message says what happened, where, and what to do next."""

    retry: ClassVar[Retry] = "once"


def first_of(fault: BaseException) -> BaseException:
    """The fault itself, or the first of a group of them: a group of tasks says all at once what failed."""
    return first_of(fault.exceptions[0]) if isinstance(fault, BaseExceptionGroup) else fault


class InputError(RatchetError):
    """A setting, a dataset line or an argument is wrong; the command ends with exit code 2."""

    retry = "never"


class DiskFull(RatchetError):
    """What has to be written does not fit on the disk."""

    retry = "never"


class WireError(RatchetError):
    """A record on a stream cannot be read: unknown schema, unknown version or damaged bytes."""


class StreamError(RatchetError):
    """The stream server cannot be reached, or refused what was asked."""

    retry = "often"


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
