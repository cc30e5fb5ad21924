"""Why an endpoint gave no verdict.

The ScoringFaults end a call: verdict `error`, never a zero reward. The RequestLost end one request, and another may help.
"""

from typing import ClassVar

from verifier.grader import ScoringFault


class EndpointAway(ScoringFault):
    """It did not answer, or not in a usable form, and may do so later: worth another try of the item."""

    def __init__(self, endpoint: str, cause: str, *, retry_after_s: float = 0.0) -> None:
        """retry_after_s: an earlier try would meet the same."""
        super().__init__(
            f'endpoint "{endpoint}" is away: {cause}. '
            f"Check that it runs and that verifier.endpoints.{endpoint} fits it; the item can be scored again"
        )
        self.endpoint, self.cause, self.retry_after_s = endpoint, cause, retry_after_s


class EndpointRefused(ScoringFault):
    """It answered that it will not serve this request (HTTP 3xx or 4xx)."""

    outcome: ClassVar[str] = "refused"

    def __init__(self, endpoint: str, status: int, action: str) -> None:
        super().__init__(f'endpoint "{endpoint}" refused the request with HTTP {status}: {action}')
        self.endpoint, self.status = endpoint, status


class BudgetSpent(ScoringFault):
    """The operator's bound on calls or tokens is reached."""

    def __init__(self, endpoint: str, setting: str, limit: int) -> None:
        super().__init__(
            f'endpoint "{endpoint}" has spent verifier.endpoints.{endpoint}.budget.{setting} = {limit}; '
            "raise it and start the verifier again"
        )
        self.endpoint, self.setting = endpoint, setting


class RequestLost(Exception):
    """One request brought nothing. Its text says why, and holds nothing of what was asked or answered."""

    outcome: ClassVar[str] = "failed"

    def __init__(self, cause: str, *, hold_s: float = 0.0) -> None:
        """hold_s: how long the endpoint asked to be left alone."""
        super().__init__(cause)
        self.hold_s = hold_s


class RequestFailed(RequestLost):
    """The endpoint is to blame: it broke off, answered with an error of its own, or with garbage."""


class RequestLate(RequestFailed):
    outcome = "late"


class Throttled(RequestLost):
    """It is alive, and asks for patience."""

    outcome = "throttled"


class CutShort(RequestLost):
    """Its caller had less time left than a request may take, which says nothing of the endpoint."""

    outcome = "cancelled"
