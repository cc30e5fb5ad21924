"""How old is the data, and what does its age cost?"""

from deploy.grafana.board import COUNT, NATS, PER_SECOND, RATIO, Board, buckets, lines

RUN = 'run=~"$run"'


def last(name: str) -> str:
    """The figure of the last step of each run."""
    return f"max by (run) (ratchet_learner_{name}{{{RUN}}})"


BOARD = Board(
    uid="ratchet-staleness",
    title="Ratchet: staleness and variance",
    question="How old is the data, and what does its age cost?",
    rows=[
        (
            "Age",
            [
                buckets(
                    "Lag of tokens",
                    "Learner steps between the sampling of a token and training on it, as a histogram of tokens.",
                    COUNT,
                    f"ratchet_learner_policy_lag_steps{{{RUN}}}",
                ),
                lines(
                    "Lag of the last step",
                    "Mean, 95th percentile and largest lag of its tokens, and the bound, learner.max_lag.",
                    COUNT,
                    (last("policy_lag_mean_steps"), "{{run}} mean"),
                    (last("policy_lag_p95_steps"), "{{run}} 95 %"),
                    (last("policy_lag_max_steps"), "{{run}} largest"),
                    (last("max_lag_steps"), "{{run}} bound"),
                ),
                lines(
                    "Stale data",
                    "What was left out because of its age, a second: groups, sequences and tokens.",
                    PER_SECOND,
                    (f'sum(rate(ratchet_learner_groups_total{{{RUN}, outcome="stale"}}[$__rate_interval]))', "groups"),
                    (
                        f'sum(rate(ratchet_learner_dropped_sequences_total{{{RUN}, reason="stale"}}[$__rate_interval]))',
                        "sequences",
                    ),
                    (f"sum(rate(ratchet_learner_masked_tokens_total{{{RUN}}}[$__rate_interval]))", "tokens"),
                ),
            ],
        ),
        (
            "Variance",
            [
                lines(
                    "ESS ratio",
                    "Effective sample size over the number of sequences. Below 0.5: sequences weigh very unequally.",
                    RATIO,
                    (last("ess_ratio"), "{{run}}"),
                    (last("truncated_ess_ratio"), "{{run}} truncated"),
                    (last("one_way_ess_ratio"), "{{run}} with one-way weights"),
                    steps=((None, "red"), (0.5, "green")),
                ),
                lines(
                    "Rate factor",
                    "Factor of the ESS rule on the learning rate. Well below 1: steps are shortened for the data's age.",
                    RATIO,
                    (last("learning_rate_factor"), "{{run}}"),
                ),
                lines(
                    "Lag window",
                    "Steps ahead for which groups are issued now, at most learner.max_lag.",
                    COUNT,
                    (last("lag_window_steps"), "{{run}}"),
                ),
            ],
        ),
        (
            "Mismatch",
            [
                lines(
                    "Behavior policy from current policy",
                    "Estimated KL divergence a token, in nats: age and engines together.",
                    NATS,
                    (last("mismatch_nats"), "{{run}}"),
                ),
                lines(
                    "Its parts",
                    "engine_mismatch: two engines with the same weights, constant and small. before_batch: engines and lag. "
                    "within_batch: several optimizer steps on one batch.",
                    NATS,
                    (f"max by (run, part) (ratchet_learner_mismatch_part_nats{{{RUN}}})", "{{run}} {{part}}"),
                ),
                lines(
                    "Truncated and clipped",
                    "Share of importance weights beyond the cap, and of tokens without a gradient because of a clip.",
                    RATIO,
                    (last("truncated_ratio"), "{{run}} truncated"),
                    (last("clipped_ratio"), "{{run}} clipped"),
                    (
                        f"max by (run, by) (ratchet_learner_sign_flipped_ratio{{{RUN}}})",
                        "{{run}} sign flipped by {{by}}",
                    ),
                ),
            ],
        ),
    ],
)
