"""Where do groups pile up, and does Redis have room for them?"""

from deploy.grafana.board import BYTES, COUNT, PER_SECOND, RATIO, SECONDS, Board, lines

RUN = 'run=~"$run"'

BOARD = Board(
    uid="ratchet-queues",
    title="Ratchet: queues",
    question="Where do groups pile up, and does Redis have room for them?",
    rows=[
        (
            "Streams",
            [
                lines(
                    "Waiting groups",
                    "Not claimed yet. On prompts: more replicas. On trajectories: more verifiers.",
                    COUNT,
                    (f"max by (run, stream) (ratchet_stream_waiting_groups{{{RUN}}})", "{{run}} {{stream}}"),
                ),
                lines(
                    "Claimed groups",
                    "Being worked on. On scored: trained on, and acknowledged with the next checkpoint.",
                    COUNT,
                    (f"max by (run, stream) (ratchet_stream_pending_groups{{{RUN}}})", "{{run}} {{stream}}"),
                ),
                lines(
                    "Age of the oldest group",
                    "Since it came to its stream. A line that climbs without end: a group that nobody finishes.",
                    SECONDS,
                    (f"max by (run, stream) (ratchet_stream_oldest_age_seconds{{{RUN}}})", "{{run}} {{stream}}"),
                ),
            ],
        ),
        (
            "Flow",
            [
                lines(
                    "Groups a second",
                    "Sampled, scored, and consumed by the learner. In balance, the three are equal.",
                    PER_SECOND,
                    (
                        f'sum by (run) (rate(ratchet_rollout_groups_total{{{RUN}, outcome="handed_over"}}[$__rate_interval]))',
                        "{{run}} sampled",
                    ),
                    (
                        f'sum by (run) (rate(ratchet_verifier_groups_total{{{RUN}, outcome="scored"}}[$__rate_interval]))',
                        "{{run}} scored",
                    ),
                    (
                        f"sum by (run) (rate(ratchet_learner_groups_total{{{RUN}}}[$__rate_interval]))",
                        "{{run}} consumed",
                    ),
                ),
                lines(
                    "Outstanding groups",
                    "Issued and not settled. Admission bounds them by (max_lag + 1) x groups_per_step.",
                    COUNT,
                    (f"max by (run) (ratchet_learner_outstanding_groups{{{RUN}}})", "{{run}}"),
                ),
                lines(
                    "Dead groups by cause",
                    "Since their room was started. Each has a line in the learner's log.",
                    COUNT,
                    (f"sum by (room, cause) (ratchet_dead_groups_total{{{RUN}}})", "{{room}}: {{cause}}"),
                    steps=((None, "green"), (1, "orange")),
                ),
            ],
        ),
        (
            "Redis",
            [
                lines(
                    "Memory",
                    "Used, and what the server may use.",
                    BYTES,
                    (f"max by (run) (ratchet_redis_used_memory_bytes{{{RUN}}})", "{{run}} used"),
                    (f"max by (run) (ratchet_redis_memory_limit_bytes{{{RUN}}})", "{{run}} limit"),
                ),
                lines(
                    "Share of memory",
                    "Full, it refuses every group.",
                    RATIO,
                    (f"run:ratchet_redis_memory:ratio{{{RUN}}}", "{{run}}"),
                    steps=((None, "green"), (0.8, "red")),
                ),
                lines(
                    "Waits for Redis",
                    "Commands without an answer now, by service. Healthy: 0.",
                    COUNT,
                    (f'sum by (job) (ratchet_waiting{{{RUN}, room="streams"}}) or vector(0)', "{{job}}"),
                    steps=((None, "green"), (1, "red")),
                ),
            ],
        ),
    ],
)
