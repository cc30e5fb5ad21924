"""The verifier's metrics on /metrics. Look first at the share of `error` and `timeout` among the scores."""

from prometheus_client import Counter, Gauge, Histogram

from services.metrics import begin_dead_groups

SCORES = Counter(
    "ratchet_verifier_scores",
    "Verdicts given. A share of error or timeout above a few per cent: a grader, a reference or the deadline is wrong.",
    ["verdict", "grader"],
)
SCORE_SECONDS = Histogram(
    "ratchet_verifier_score_seconds",
    "Seconds in the grader, per response. A tail near verifier.item_deadline_s becomes timeouts.",
    buckets=(1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
)
QUEUED_ITEMS = Gauge(
    "ratchet_verifier_queued_items",
    "Responses accepted and not yet judged. Near verifier.max_queued_items: add processes or verifiers.",
)
POOL_RESTARTS = Counter(
    "ratchet_verifier_pool_restarts",
    "Grader processes replaced, because one was stuck (killed) or ended by itself (crashed).",
    ["cause"],
)
POOL_SLOW = Counter(
    "ratchet_verifier_pool_slow",
    "Responses that took far longer than usual for their grader and were finished at low priority.",
)
CACHE_LOOKUPS = Counter(
    "ratchet_verifier_cache_lookups",
    "Responses looked up among the verdicts that are already known, by result: hit, miss.",
    ["result"],
)
REQUESTS_REFUSED = Counter(
    "ratchet_verifier_requests_refused",
    "Requests not scored, by HTTP status: 401 without a token, 413 too large, 422 malformed, 503 saturated.",
    ["status"],
)
GROUPS = Counter(
    "ratchet_verifier_groups",
    "What became of claimed groups: scored, dead, repeated (another worker was first). Look into a growing `dead`.",
    ["outcome"],
)
GROUP_RETRIES = Counter(
    "ratchet_verifier_group_retries",
    "Groups asked for again because a verdict was error or timeout. After verifier.attempts of them a group is dead.",
)
OUTAGES = Counter(
    "ratchet_verifier_outages",
    "Times that the stream worker lost a service it depends on (scoring, streams) and began to wait for it.",
    ["awaiting"],
)
RETRIED_CALLS = Counter(
    "ratchet_verifier_retried_calls",
    "Calls repeated while the service they need is away or saturated, by what was awaited.",
    ["awaiting"],
)
RUNNING_PROGRAMS = Gauge(
    "ratchet_verifier_running_programs", "Programs of policies that run in the sandbox now (tool `python`)."
)

begin_dead_groups("verifier")
for _result in ("hit", "miss"):
    CACHE_LOOKUPS.labels(_result)
for _status in ("401", "413", "422", "503"):
    REQUESTS_REFUSED.labels(_status)
for _cause in ("stuck", "crashed"):
    POOL_RESTARTS.labels(_cause)
for _outcome in ("scored", "dead", "repeated"):
    GROUPS.labels(_outcome)
for _awaiting in ("scoring", "streams"):
    OUTAGES.labels(_awaiting)
    RETRIED_CALLS.labels(_awaiting)
