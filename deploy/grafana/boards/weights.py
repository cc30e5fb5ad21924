"""Do all replicas hold the learner's weights, and what does it cost to bring them there?"""

from deploy.grafana.board import BYTES, COUNT, NATS, RATIO, SECONDS, Board, lines, quantiles

RUN = 'run=~"$run"'
OF = 'run=~"$run", instance=~"$instance"'

BOARD = Board(
    uid="ratchet-weights",
    title="Ratchet: weights",
    question="Do all replicas hold the learner's weights, and what does it cost to bring them there?",
    variables={"instance": "label_values(ratchet_rollout_ready, instance)"},
    rows=[
        (
            "Versions",
            [
                lines(
                    "Policy versions",
                    "Of the learner and of each replica. Replicas follow within a step or two.",
                    COUNT,
                    (f"max by (run) (ratchet_learner_policy_version{{{RUN}}})", "{{run}} learner"),
                    (f"ratchet_rollout_policy_version{{{OF}}}", "{{instance}}"),
                ),
                lines(
                    "Live replicas by state",
                    "in_step confirmed the last version; behind did not; left_out failed and sits out for a while.",
                    COUNT,
                    (f"sum by (state) (ratchet_learner_live_replicas{{{RUN}}})", "{{state}}"),
                    stacked=True,
                ),
                lines(
                    "Generation of the weight group",
                    "It grows by one with every join or leave; a steady climb means that a replica comes and goes.",
                    COUNT,
                    (f"max by (run) (ratchet_learner_pg_generation{{{RUN}}})", "{{run}}"),
                ),
            ],
        ),
        (
            "Equality",
            [
                lines(
                    "Probe gap after each broadcast",
                    "Largest difference of log-probs between a replica and the learner, in nats, and the bound that ends a run.",
                    NATS,
                    (f"max by (run) (ratchet_learner_weight_gap_nats{{{RUN}}})", "{{run}}"),
                    (f"max by (run) (ratchet_learner_weight_gap_limit_nats{{{RUN}}})", "{{run}} bound"),
                ),
                lines(
                    "Probe gap by replica",
                    "The same as each replica measured it at its last swap.",
                    NATS,
                    (f"ratchet_rollout_weight_gap_nats{{{OF}}}", "{{instance}}"),
                ),
                lines(
                    "Broadcasts",
                    "Confirmed by every member, and failed, a minute.",
                    COUNT,
                    (
                        f"60 * sum by (outcome) (rate(ratchet_learner_weight_syncs_total{{{RUN}}}[$__rate_interval]))",
                        "{{outcome}}",
                    ),
                ),
            ],
        ),
        (
            "Cost",
            [
                lines(
                    "Seconds of a broadcast",
                    "From the announcement until the last replica confirmed.",
                    SECONDS,
                    *quantiles(f"ratchet_learner_weight_sync_seconds{{{RUN}}}", "run"),
                ),
                lines(
                    "Seconds of a transfer",
                    "Receiving and checking, while sampling goes on.",
                    SECONDS,
                    *quantiles(f"ratchet_rollout_weight_transfer_seconds{{{OF}}}"),
                ),
                lines(
                    "Bytes that left the learner",
                    "A minute: whole buckets, and what changed in them (weights.delta).",
                    BYTES,
                    (
                        f"60 * sum by (form) (rate(ratchet_learner_weight_bytes_total{{{RUN}}}[$__rate_interval]))",
                        "{{form}}",
                    ),
                ),
                lines(
                    "Seconds that sampling stood still",
                    "For a swap.",
                    SECONDS,
                    *quantiles(f"ratchet_rollout_sampling_gap_seconds{{{OF}}}"),
                ),
                lines(
                    "Waits of the publisher and the loop",
                    "Share of time: replicas to join, replicas to confirm, and the training loop's wait for both.",
                    RATIO,
                    (
                        f'sum by (awaiting) (rate(ratchet_wait_seconds_total{{{RUN}, room="learner", '
                        'awaiting=~"weight confirmations|replicas to .*"}[$__rate_interval]))',
                        "{{awaiting}}",
                    ),
                ),
                lines(
                    "Waits of replicas",
                    "Share of time, summed over replicas: for proven weights, for the group to form, for bytes to arrive.",
                    RATIO,
                    (
                        f'sum by (awaiting) (rate(ratchet_wait_seconds_total{{{OF}, room="rollout", '
                        'awaiting=~"weights|the process group|a weight transfer"}[$__rate_interval]))',
                        "{{awaiting}}",
                    ),
                ),
                lines(
                    "Versions swapped in",
                    "A minute, by replica: exchanged with what was prepared beside the running weights, or reloaded in a pause.",
                    COUNT,
                    (
                        f"60 * rate(ratchet_rollout_weight_swaps_total{{{OF}}}[$__rate_interval])",
                        "{{instance}} {{kind}}",
                    ),
                ),
            ],
        ),
    ],
)
