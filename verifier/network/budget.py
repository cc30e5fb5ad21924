"""What one endpoint has cost since the service started, and the bounds on it.

A bound is checked before a request is sent. What a request costs is known after it, so the tokens of up to
max_concurrent requests in flight may come on top of max_tokens; max_calls is exact.
"""

from services.config.endpoints import BudgetConfig
from verifier.network import metrics
from verifier.network.faults import BudgetSpent


class Budget:
    """Counts requests and tokens of one endpoint. Nothing here waits."""

    def __init__(self, endpoint: str, limits: BudgetConfig) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self.calls = 0
        self.tokens = 0

    def spend_call(self) -> None:
        """Count a request that is about to be sent. Raises BudgetSpent, without counting it, when a bound is reached."""
        for setting, limit, spent in (
            ("max_calls", self._limits.max_calls, self.calls),
            ("max_tokens", self._limits.max_tokens, self.tokens),
        ):
            if limit is not None and spent >= limit:
                metrics.ENDPOINT_UNSENT.labels(self._endpoint, "budget").inc()
                raise BudgetSpent(self._endpoint, setting, limit)
        self.calls += 1

    def spend_tokens(self, prompt: int, completion: int) -> None:
        """Count the tokens of an answer."""
        self.tokens += prompt + completion
        metrics.ENDPOINT_TOKENS.labels(self._endpoint, "prompt").inc(prompt)
        metrics.ENDPOINT_TOKENS.labels(self._endpoint, "completion").inc(completion)
