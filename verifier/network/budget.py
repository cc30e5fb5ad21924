"""What one endpoint has cost since the service started, and the bounds on it.

A bound is looked at before a request is sent. What a request costs is known after it, so the tokens of up to
max_concurrent requests in flight may come on top of max_tokens; max_calls is exact.
"""

from services.config.endpoints import BudgetConfig
from verifier.network import metrics
from verifier.network.faults import BudgetSpent


class Budget:
    def __init__(self, endpoint: str, limits: BudgetConfig) -> None:
        self._endpoint, self._limits = endpoint, limits
        self.calls = 0
        self.tokens = 0

    def spend_call(self) -> None:
        """One request is about to be sent. Raises BudgetSpent, and then counts nothing."""
        for setting, limit, spent in (
            ("max_calls", self._limits.max_calls, self.calls),
            ("max_tokens", self._limits.max_tokens, self.tokens),
        ):
            if limit is not None and spent >= limit:
                metrics.ENDPOINT_UNSENT.labels(self._endpoint, "budget").inc()
                raise BudgetSpent(self._endpoint, setting, limit)
        self.calls += 1

    def spend_tokens(self, prompt: int, completion: int) -> None:
        self.tokens += prompt + completion
        metrics.ENDPOINT_TOKENS.labels(self._endpoint, "prompt").inc(prompt)
        metrics.ENDPOINT_TOKENS.labels(self._endpoint, "completion").inc(completion)
