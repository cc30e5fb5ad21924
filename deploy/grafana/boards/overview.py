"""Is the run healthy, how far is it, and what is it waiting for?"""

from deploy.grafana.board import BYTES, COUNT, PER_SECOND, RATIO, SECONDS, Board, lines, number

RUN = 'run=~"$run"'

BOARD = Board(
    uid="ratchet-overview",
    title="Ratchet: overview",
    question="Is the run healthy, how far is it, and what is it waiting for?",
    variables={"job": "label_values(up, job)"},
    rows=[
        (
            "Now",
            [
                number(
                    "Progress",
                    "Steps taken of the steps planned.",
                    RATIO,
                    f"max by (run) (ratchet_learner_policy_version{{{RUN}}} / ratchet_learner_planned_steps{{{RUN}}})",
                    steps=((None, "blue"),),
                ),
                number(
                    "Time left",
                    "Steps left over the pace of the last five minutes, evaluations included.",
                    SECONDS,
                    f"max by (run) (ratchet_learner_planned_steps{{{RUN}}} - ratchet_learner_policy_version{{{RUN}}}) "
                    f"/ run:ratchet_learner_steps:rate5m{{{RUN}}}",
                    steps=((None, "blue"),),
                ),
                number(
                    "Pass rate",
                    "Fraction of correct responses in the last step. It rises when the run learns.",
                    RATIO,
                    f"max by (run) (ratchet_learner_pass_ratio{{{RUN}}})",
                ),
                number(
                    "Trained tokens",
                    "Response tokens a second that reached a loss.",
                    PER_SECOND,
                    f"run:ratchet_learner_trained_tokens:rate5m{{{RUN}}}",
                ),
                number(
                    "Replicas",
                    "Replicas in the weight group. 0: nothing is sampled.",
                    COUNT,
                    f"max by (run) (ratchet_learner_replicas{{{RUN}}})",
                    steps=((None, "red"), (1, "green")),
                ),
                number(
                    "Alerts",
                    "Alerts that fire now, of all runs; each has a section in docs/runbook.md.",
                    COUNT,
                    'count(ALERTS{alertstate="firing"}) or vector(0)',
                    steps=((None, "green"), (1, "red")),
                ),
                number(
                    "Last step",
                    "Seconds since the last step ended.",
                    SECONDS,
                    f"time() - max by (run) (ratchet_learner_last_step_timestamp_seconds{{{RUN}}})",
                    steps=((None, "green"), (600, "orange"), (1800, "red")),
                ),
                number(
                    "Newest checkpoint",
                    "Its age: what a crash would repeat.",
                    SECONDS,
                    f"time() - max by (run) (ratchet_learner_checkpoint_timestamp_seconds{{{RUN}}})",
                    steps=((None, "green"), (3600, "orange")),
                ),
                number(
                    "Running since",
                    "Seconds since the learner was started.",
                    SECONDS,
                    f'time() - max by (run) (process_start_time_seconds{{{RUN}, job="learner"}})',
                    steps=((None, "blue"),),
                ),
                number(
                    "Verdicts missing",
                    "Share of responses with the verdict error or timeout.",
                    RATIO,
                    f"run:ratchet_verifier_errors:ratio_rate5m{{{RUN}}}",
                    steps=((None, "green"), (0.01, "orange"), (0.05, "red")),
                ),
                number(
                    "Dead groups",
                    "Groups that were given up since their room was started.",
                    COUNT,
                    f"sum by (run) (ratchet_dead_groups_total{{{RUN}}})",
                    steps=((None, "green"), (1, "orange")),
                ),
                number(
                    "Cost of a million tokens",
                    "Of trained tokens, in the currency of price.gpu_hour; empty when that is not set.",
                    COUNT,
                    f"run:ratchet_cost_per_million_trained_tokens{{{RUN}}} > 0",
                    steps=((None, "blue"),),
                ),
            ],
        ),
        (
            "Is it learning?",
            [
                lines(
                    "Pass rate and held-out accuracy",
                    "Both rise. Held-out accuracy is the figure that counts; the pass rate is that of each step.",
                    RATIO,
                    (f"max by (run) (ratchet_learner_pass_ratio{{{RUN}}})", "{{run}} pass rate"),
                    (
                        f"max by (run, metric) (ratchet_learner_evaluation_ratio{{{RUN}}})",
                        "{{run}} held out {{metric}}",
                    ),
                ),
                lines(
                    "Entropy",
                    "Mean entropy of a response token, in nats. It falls slowly; a sudden fall to 0 is a collapse.",
                    "none",
                    (f"max by (run) (ratchet_learner_entropy_nats{{{RUN}}})", "{{run}}"),
                ),
                lines(
                    "Tokens",
                    "Sampled by all replicas, and trained on. The distance is what was dropped or is in flight.",
                    PER_SECOND,
                    (f"run:ratchet_rollout_sampled_tokens:rate5m{{{RUN}}}", "{{run}} sampled"),
                    (f"run:ratchet_learner_trained_tokens:rate5m{{{RUN}}}", "{{run}} trained"),
                ),
            ],
        ),
        (
            "What is it waiting for?",
            [
                lines(
                    "The learner's time",
                    "Share of time in steps and checkpoints, and in each wait of its loop. The largest wait is the bottleneck.",
                    RATIO,
                    (
                        f'sum by (run) (rate(ratchet_busy_seconds_total{{{RUN}, room="learner"}}[$__rate_interval]))',
                        "at work",
                    ),
                    (f"sum by (awaiting) (run:ratchet_learner_waiting:ratio_rate5m{{{RUN}}})", "{{awaiting}}"),
                ),
                lines(
                    "Idle",
                    "Share of time without work: no sequence in an engine, no response to grade, no step. The room that is "
                    "least idle is the one to scale.",
                    RATIO,
                    (f"avg by (room) (instance:ratchet_idle:ratio_rate5m{{{RUN}}})", "{{room}}"),
                    steps=((None, "green"), (0.5, "orange")),
                ),
                lines(
                    "Waits in progress",
                    "What each room waits for now, and how many at once.",
                    COUNT,
                    (f"sum by (room, awaiting) (ratchet_waiting{{{RUN}}}) > 0", "{{room}}: {{awaiting}}"),
                ),
            ],
        ),
        (
            "Services",
            [
                lines(
                    "Services that answer",
                    "By job, as Prometheus sees them.",
                    COUNT,
                    ('sum by (job) (up{job=~"$job"})', "{{job}}"),
                ),
                lines(
                    "Memory of processes",
                    "Resident memory of the main process of each service; engine and grader processes are not in it.",
                    BYTES,
                    (
                        f'max by (job, instance) (process_resident_memory_bytes{{{RUN}, job=~"$job"}})',
                        "{{job}} {{instance}}",
                    ),
                ),
                lines(
                    "Free disk of the run folder",
                    "Each checkpoint is a step in it.",
                    RATIO,
                    (f"run:ratchet_disk_free:ratio{{{RUN}}}", "{{run}}"),
                    steps=((None, "red"), (0.1, "green")),
                ),
            ],
        ),
    ],
)
