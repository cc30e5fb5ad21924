"""Metrics of the learner that are not figures of a step; those are declared in learner/step/report.py."""

from prometheus_client import Counter, Gauge, Histogram

POLICY_VERSION = Gauge(
    "ratchet_learner_policy_version", "Policy version of the current weights: the number of learner steps behind them."
)
REFERENCE_VERSION = Gauge("ratchet_learner_reference_version", "Policy version of the reference (the ratchet).")
REFERENCE_VERDICTS = Counter(
    "ratchet_learner_reference_verdicts",
    "Decisions of the ratchet: swap, pass_rate_fell (a swap was due and the reference stayed) or roll_back.",
    ["verdict"],
)
STEP_SECONDS = Histogram(
    "ratchet_learner_step_seconds",
    "Seconds that a learner step took, without the wait for groups.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
TRAINED_TOKENS = Counter("ratchet_learner_trained_tokens", "Response tokens that reached a loss.")
GROUPS = Counter(
    "ratchet_learner_groups",
    "Groups by what became of them: trained, skipped_step, or why they were dropped.",
    ["outcome"],
)
OUTSTANDING = Gauge(
    "ratchet_learner_outstanding_groups", "Groups that were issued and are not settled yet; admission bounds them."
)
LAG_WINDOW_STEPS = Gauge(
    "ratchet_learner_lag_window_steps", "Steps ahead for which groups are issued now, at most learner.max_lag."
)
EVALUATION_RATIO = Gauge(
    "ratchet_learner_evaluation_ratio", "Held-out accuracy of the last evaluation, 0..1.", ["metric"]
)
CHECKPOINT_SECONDS = Histogram(
    "ratchet_learner_checkpoint_seconds",
    "Seconds that writing a checkpoint took.",
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900),
)
SYNC_SECONDS = Histogram(
    "ratchet_learner_weight_sync_seconds",
    "Seconds from announcing a policy version until every replica confirmed it.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
SYNCS = Counter("ratchet_learner_weight_syncs", "Broadcasts of weights by outcome.", ["outcome"])
GAP_NATS = Gauge(
    "ratchet_learner_weight_gap_nats", "Largest probe gap that a replica reported after the last broadcast, in nats."
)
GENERATION = Gauge(
    "ratchet_learner_pg_generation", "Generation of the weight group; it grows by 1 with every join or leave."
)
REPLICAS = Gauge("ratchet_learner_replicas", "Replicas in the weight group.")
