"""Are the verdicts sound, and do they come fast enough?"""

from deploy.grafana.board import COUNT, PER_SECOND, RATIO, SECONDS, Board, lines, quantiles

OF = 'run=~"$run", instance=~"$instance"'


def rate(name: str, label: str) -> tuple[str, str]:
    """The rate of a counter of the verifiers, by one of its labels."""
    return f"sum by ({label}) (rate(ratchet_verifier_{name}{{{OF}}}[$__rate_interval]))", f"{{{{{label}}}}}"


BOARD = Board(
    uid="ratchet-verifier",
    title="Ratchet: verifier",
    question="Are the verdicts sound, and do they come fast enough?",
    variables={"instance": "label_values(ratchet_verifier_queued_items, instance)"},
    rows=[
        (
            "Verdicts",
            [
                lines(
                    "Verdicts",
                    "A second, by verdict. An error or a timeout is never a reward of zero.",
                    PER_SECOND,
                    rate("scores_total", "verdict"),
                    stacked=True,
                ),
                lines(
                    "Share of error and timeout",
                    "Above a few per cent a grader, a reference or a deadline is wrong.",
                    RATIO,
                    ('run:ratchet_verifier_errors:ratio_rate5m{run=~"$run"}', "{{run}}"),
                    steps=((None, "green"), (0.05, "red")),
                ),
                lines("By grader", "Verdicts a second.", PER_SECOND, rate("scores_total", "grader")),
            ],
        ),
        (
            "Speed",
            [
                lines(
                    "Seconds in the grader",
                    "For one response. A tail near verifier.item_deadline_s becomes timeouts.",
                    SECONDS,
                    *quantiles(f"ratchet_verifier_score_seconds{{{OF}}}"),
                ),
                lines(
                    "Responses queued",
                    "Accepted and not yet judged. Near verifier.max_queued_items: more processes or more verifiers.",
                    COUNT,
                    (f"ratchet_verifier_queued_items{{{OF}}}", "{{instance}}"),
                ),
                lines(
                    "Idle",
                    "Share of the last five minutes without a response to grade. A verifier that idles is fast enough.",
                    RATIO,
                    (f'instance:ratchet_idle:ratio_rate5m{{{OF}, room="verifier"}}', "{{instance}}"),
                ),
            ],
        ),
        (
            "Groups",
            [
                lines(
                    "Groups by outcome",
                    "dead: given up with a cause. repeated: another worker was first.",
                    PER_SECOND,
                    rate("groups_total", "outcome"),
                ),
                lines(
                    "Groups asked for again",
                    "Because a verdict was error or timeout; after verifier.attempts of them a group is dead.",
                    PER_SECOND,
                    (f"sum(rate(ratchet_verifier_group_retries_total{{{OF}}}[$__rate_interval]))", "retries"),
                ),
                lines(
                    "Outages",
                    "Times that the worker lost a service it depends on, and calls repeated meanwhile, a second.",
                    PER_SECOND,
                    (
                        f"sum by (awaiting) (rate(ratchet_verifier_outages_total{{{OF}}}[$__rate_interval]))",
                        "{{awaiting}} lost",
                    ),
                    (
                        f"sum by (awaiting) (rate(ratchet_verifier_retried_calls_total{{{OF}}}[$__rate_interval]))",
                        "{{awaiting}} asked again",
                    ),
                ),
            ],
        ),
        (
            "Pool and cache",
            [
                lines(
                    "Grader processes replaced",
                    "stuck: killed at a deadline. crashed: ended by itself. Healthy: rare.",
                    PER_SECOND,
                    rate("pool_restarts_total", "cause"),
                ),
                lines(
                    "Cache",
                    "Responses looked up, a second: hit, miss.",
                    PER_SECOND,
                    rate("cache_lookups_total", "result"),
                ),
                lines(
                    "Refused and slow",
                    "Requests refused, by HTTP status, and responses finished at low priority, a second.",
                    PER_SECOND,
                    rate("requests_refused_total", "status"),
                    (f"sum(rate(ratchet_verifier_pool_slow_total{{{OF}}}[$__rate_interval]))", "slow"),
                ),
            ],
        ),
        (
            "Endpoints (judges and remote graders; empty without one)",
            [
                lines(
                    "Endpoint calls",
                    "A second, by endpoint and outcome.",
                    PER_SECOND,
                    (
                        f"sum by (endpoint, outcome) (rate(ratchet_verifier_endpoint_calls_total{{{OF}}}[$__rate_interval]))",
                        "{{endpoint}} {{outcome}}",
                    ),
                ),
                lines(
                    "Seconds of an endpoint's answer",
                    "A tail near timeout_s turns into late requests.",
                    SECONDS,
                    *quantiles(f"ratchet_verifier_endpoint_seconds{{{OF}}}", "endpoint"),
                ),
                lines(
                    "Endpoint breaker",
                    "0 closed, 1 half-open, 2 open; above 0 for minutes: look at the endpoint.",
                    COUNT,
                    (f"max by (endpoint) (ratchet_verifier_endpoint_breaker_state{{{OF}}})", "{{endpoint}}"),
                    steps=((None, "green"), (1, "red")),
                ),
                lines(
                    "Calls that wait for their turn",
                    "If it grows, raise max_concurrent.",
                    COUNT,
                    (f"sum by (endpoint) (ratchet_verifier_endpoint_waiting_calls{{{OF}}})", "{{endpoint}}"),
                ),
                lines(
                    "Endpoint tokens",
                    "A second, by kind: what it costs.",
                    PER_SECOND,
                    (
                        f"sum by (endpoint, kind) (rate(ratchet_verifier_endpoint_tokens_total{{{OF}}}[$__rate_interval]))",
                        "{{endpoint}} {{kind}}",
                    ),
                ),
                lines(
                    "Endpoint requests that were not sent",
                    "By cause: breaker, budget, deadline. Each one is a verdict error.",
                    PER_SECOND,
                    (
                        f"sum by (endpoint, cause) (rate(ratchet_verifier_endpoint_unsent_total{{{OF}}}[$__rate_interval]))",
                        "{{endpoint}} {{cause}}",
                    ),
                ),
            ],
        ),
    ],
)
