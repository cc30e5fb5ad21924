"""Why an endpoint gave no verdict.

A ScoringFault ends a call: verdict `error`, never a zero reward. A RequestLost ends one request, and another may help.
"""

from typing import ClassVar

from verifier.grader import ScoringFault


class EndpointAway(ScoringFault):
    """The endpoint gave no usable answer, and may give one later: the item is worth another try."""

    def __init__(self, endpoint: str, cause: str, *, retry_after_s: float = 0.0) -> None:
        """retry_after_s: a try before this time would fail in the same way."""
        super().__init__(
            f'endpoint "{endpoint}" is away: {cause}. '
            f"Check that it runs and that verifier.endpoints.{endpoint} fits it; the item can be scored again"
        )
        self.endpoint = endpoint
        self.cause = cause
        self.retry_after_s = retry_after_s


class EndpointRefused(ScoringFault):
    """The endpoint answered that it will not serve this request (HTTP 3xx or 4xx)."""

    outcome: ClassVar[str] = "refused"

    def __init__(self, endpoint: str, status: int, action: str) -> None:
        super().__init__(f'endpoint "{endpoint}" refused the request with HTTP {status}: {action}')
        self.endpoint = endpoint
        self.status = status


class BudgetSpent(ScoringFault):
    """The bound on calls or tokens in the settings is reached."""

    def __init__(self, endpoint: str, setting: str, limit: int) -> None:
        super().__init__(
            f'endpoint "{endpoint}" has spent verifier.endpoints.{endpoint}.budget.{setting} = {limit}; '
            "raise it and start the verifier again"
        )
        self.endpoint = endpoint
        self.setting = setting


class RequestLost(Exception):
    """One request brought no answer. Its text says why, and quotes nothing of what was asked or answered."""

    outcome: ClassVar[str] = "failed"

    def __init__(self, cause: str, *, hold_s: float = 0.0) -> None:
        """hold_s: for how long the endpoint asked for no requests."""
        super().__init__(cause)
        self.hold_s = hold_s


class RequestFailed(RequestLost):
    """The endpoint is at fault: it closed the connection, or answered with an error of its own or in no known form."""


class RequestLate(RequestFailed):
    """The endpoint did not answer within timeout_s."""

    outcome = "late"


class Throttled(RequestLost):
    """The endpoint is alive and asks for fewer requests (HTTP 429)."""

    outcome = "throttled"


class CutShort(RequestLost):
    """The call had less time left than a request may take, which says nothing about the endpoint."""

    outcome = "cancelled"
