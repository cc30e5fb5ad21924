"""What the network lane shows on /metrics, by endpoint. Look first at breakers that are not closed."""

from prometheus_client import Counter, Gauge, Histogram

ENDPOINT_CALLS = Counter(
    "ratchet_verifier_endpoint_calls",
    "Requests sent, by what became of them: answered, throttled (429), refused (4xx), failed, late, cancelled.",
    ["endpoint", "outcome"],
)
ENDPOINT_UNSENT = Counter(
    "ratchet_verifier_endpoint_unsent",
    "Requests that were due and not sent, by cause: breaker, budget, deadline. Each one is a verdict `error`.",
    ["endpoint", "cause"],
)
ENDPOINT_SECONDS = Histogram(
    "ratchet_verifier_endpoint_seconds",
    "Seconds that one answered request took. A tail near timeout_s turns into late requests.",
    ["endpoint"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
)
ENDPOINT_WAITING = Gauge(
    "ratchet_verifier_endpoint_waiting_calls",
    "Calls that wait for their turn. If it grows, raise max_concurrent, or the endpoint is too slow for the run.",
    ["endpoint"],
)
ENDPOINT_TOKENS = Counter(
    "ratchet_verifier_endpoint_tokens",
    "Tokens that the endpoint reported: what it costs. Bounded by budget.max_tokens.",
    ["endpoint", "kind"],
)
BREAKER_STATE = Gauge(
    "ratchet_verifier_endpoint_breaker_state",
    "0 closed, 1 half-open (one request tries), 2 open (nothing is sent). If above 0 for minutes, look at the endpoint.",
    ["endpoint"],
)


def announce(endpoint: str) -> None:
    """Create each series of the endpoint, at zero, before anything happens."""
    for outcome in ("answered", "throttled", "refused", "failed", "late", "cancelled"):
        ENDPOINT_CALLS.labels(endpoint, outcome)
    for cause in ("breaker", "budget", "deadline"):
        ENDPOINT_UNSENT.labels(endpoint, cause)
    for kind in ("prompt", "completion"):
        ENDPOINT_TOKENS.labels(endpoint, kind)
    ENDPOINT_SECONDS.labels(endpoint)
    ENDPOINT_WAITING.labels(endpoint)
    BREAKER_STATE.labels(endpoint).set(0)
