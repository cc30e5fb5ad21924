"""Does the policy get better, and if not, why?"""

from deploy.grafana.board import COUNT, NATS, PER_SECOND, RATIO, SECONDS, Board, lines, quantiles

RUN = 'run=~"$run"'


def last(name: str) -> str:
    """The figure of the last step of each run."""
    return f"max by (run) (ratchet_learner_{name}{{{RUN}}})"


BOARD = Board(
    uid="ratchet-learning",
    title="Ratchet: learning",
    question="Does the policy get better, and if not, why?",
    rows=[
        (
            "Results",
            [
                lines(
                    "Reward",
                    "Mean reward of all groups of a step, those without variance included.",
                    NATS,
                    (last("reward_mean"), "{{run}}"),
                ),
                lines("Pass rate", "Fraction of correct responses of a step.", RATIO, (last("pass_ratio"), "{{run}}")),
                lines(
                    "Held-out accuracy",
                    "Of the last evaluation, by metric. It decides whether the run is good.",
                    RATIO,
                    (f"max by (run, metric) (ratchet_learner_evaluation_ratio{{{RUN}}})", "{{run}} {{metric}}"),
                ),
            ],
        ),
        (
            "Data",
            [
                lines(
                    "Groups without variance",
                    "All rewards of the group are equal, so it teaches nothing. Above 0.7: easier or harder problems.",
                    RATIO,
                    (last("zero_variance_ratio"), "{{run}}"),
                    steps=((None, "green"), (0.7, "orange"), (0.95, "red")),
                ),
                lines(
                    "Groups by outcome",
                    "What became of consumed groups, a second: trained, or why they were dropped.",
                    PER_SECOND,
                    (
                        f"sum by (outcome) (rate(ratchet_learner_groups_total{{{RUN}}}[$__rate_interval])) > 0",
                        "{{outcome}}",
                    ),
                    (f"sum by (run) (rate(ratchet_learner_groups_total{{{RUN}}}[$__rate_interval]))", "all"),
                ),
                lines(
                    "Length and truncation",
                    "Mean response length in tokens, and the share that max_tokens cut, as a share of 100 tokens.",
                    COUNT,
                    (last("response_tokens_mean"), "{{run}} tokens"),
                    (f"100 * {last('cut_ratio')}", "{{run}} cut, %"),
                ),
            ],
        ),
        (
            "Optimization",
            [
                lines(
                    "Gradient norm",
                    "Before it is cut, and the limit. At the limit all the time: lower the learning rate.",
                    NATS,
                    (last("gradient_norm"), "{{run}}"),
                    (last("gradient_norm_limit"), "{{run}} limit"),
                ),
                lines(
                    "Learning rate",
                    "The schedule's rate times the factor of the ESS rule.",
                    "sci",
                    (last("learning_rate"), "{{run}}"),
                ),
                lines("Loss", "The value that was differentiated.", NATS, (last("loss"), "{{run}}")),
            ],
        ),
        (
            "Policy",
            [
                lines(
                    "Entropy",
                    "Nats a token. A sudden fall to 0: the policy answers with one text. A steady rise: it forgets.",
                    NATS,
                    (last("entropy_nats"), "{{run}}"),
                ),
                lines(
                    "One-way weights",
                    "Mean weight of tokens by the sign of their advantage. Below 1 for positive ones: gains are locked.",
                    NATS,
                    (f"max by (run, advantage) (ratchet_learner_one_way_weight{{{RUN}}})", "{{run}} {{advantage}}"),
                ),
                lines(
                    "One-way weights at a bound",
                    "Share of tokens whose weight is at its lower or upper bound, by the sign of the advantage.",
                    RATIO,
                    (
                        f"max by (run, bound, advantage) (ratchet_learner_one_way_bound_ratio{{{RUN}}})",
                        "{{run}} {{bound}} {{advantage}}",
                    ),
                ),
            ],
        ),
        (
            "Reference policy",
            [
                lines(
                    "Reference version",
                    "Policy version of the reference beside the current one. The ratchet moves it up in jumps.",
                    COUNT,
                    (last("reference_version"), "{{run}} reference"),
                    (last("policy_version"), "{{run}} current"),
                ),
                lines(
                    "Gap to the reference",
                    "Mean log current/reference over tokens, in nats; 0 right after a ratchet.",
                    NATS,
                    (last("reference_gap_nats"), "{{run}}"),
                ),
                lines(
                    "Decisions of the ratchet",
                    "swap moves the reference; pass_rate_fell kept it; roll_back took the one before.",
                    COUNT,
                    (f"sum by (verdict) (ratchet_learner_reference_verdicts_total{{{RUN}}})", "{{verdict}}"),
                ),
            ],
        ),
        (
            "Sources",
            [
                lines(
                    "Pass rate by source",
                    "Of the last step that had groups of the source. Empty where the run has one source.",
                    RATIO,
                    (f"max by (source) (ratchet_learner_source_pass_ratio{{{RUN}}})", "{{source}}"),
                ),
                lines(
                    "Share of the prompts",
                    "What each source gets now: its weight, or what the sampler has learned.",
                    RATIO,
                    (f"max by (source) (ratchet_learner_source_share_ratio{{{RUN}}})", "{{source}}"),
                ),
                lines(
                    "Groups dropped by source",
                    "Groups a second that did not reach a step, by source and reason.",
                    PER_SECOND,
                    (
                        "sum by (source, outcome) (rate(ratchet_learner_source_groups_total"
                        f'{{{RUN}, outcome!="kept"}}[$__rate_interval]))',
                        "{{source}} {{outcome}}",
                    ),
                ),
            ],
        ),
        (
            "Steps",
            [
                lines(
                    "Seconds a step",
                    "Without the wait for groups.",
                    SECONDS,
                    *quantiles(f"ratchet_learner_step_seconds{{{RUN}}}", "run"),
                ),
                lines(
                    "Steps skipped",
                    "Steps that changed nothing because a value was not finite. Healthy: 0.",
                    COUNT,
                    (f"sum by (reason) (ratchet_learner_skipped_steps_total{{{RUN}}})", "{{reason}}"),
                    steps=((None, "green"), (1, "red")),
                ),
                lines(
                    "Baseline shift",
                    "Mean distance of the minimum-variance baseline from the group's mean reward; 0 for other baselines.",
                    NATS,
                    (last("baseline_shift"), "{{run}}"),
                ),
            ],
        ),
    ],
)
