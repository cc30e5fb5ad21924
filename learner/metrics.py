"""Metrics of the learner that are not figures of a step; those are declared in learner/step/report.py."""

import math

from prometheus_client import Counter, Gauge, Histogram

from services.metrics import CountedHistogram, begin_dead_groups

POLICY_VERSION = Gauge(
    "ratchet_learner_policy_version", "Policy version of the current weights: the number of learner steps behind them."
)
PLANNED_STEPS = Gauge("ratchet_learner_planned_steps", "Steps that the run is to take: learner.steps.")
LAST_STEP_TIMESTAMP = Gauge(
    "ratchet_learner_last_step_timestamp_seconds",
    "When the last step ended, in seconds since 1970; before the first, when training began.",
)
RANKS = Gauge("ratchet_learner_ranks", "Processes of the learner, each on a device of its own.")
GPU_HOUR_PRICE = Gauge("ratchet_learner_gpu_hour_price", "What price.gpu_hour says; nan when it is not set.")
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
SUSPECTED_GROUPS = Gauge(
    "ratchet_learner_suspected_groups",
    "Groups that were in two steps which killed the learner, and are tried in parts until it is known which of them does.",
)
POLICY_LAG_STEPS = CountedHistogram(
    "ratchet_learner_policy_lag_steps",
    "Learner steps between sampling a token and training on it, an observation for each token that reached a loss.",
    buckets=(0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64),
)
MAX_LAG_STEPS = Gauge("ratchet_learner_max_lag_steps", "Steps that a token may be behind, learner.max_lag.")
LAG_WINDOW_STEPS = Gauge(
    "ratchet_learner_lag_window_steps", "Steps ahead for which groups are issued now, at most learner.max_lag."
)
EVALUATION_RATIO = Gauge(
    "ratchet_learner_evaluation_ratio", "Held-out accuracy of the last evaluation, 0..1.", ["metric"]
)
SOURCE_EVALUATION_RATIO = Gauge(
    "ratchet_learner_source_evaluation_ratio",
    "Held-out accuracy of the last evaluation on one of several sources, 0..1.",
    ["source", "metric"],
)
SOURCE_REWARD = Gauge(
    "ratchet_learner_source_reward_mean",
    "Mean reward, before shaping, of the last step's groups of one of several sources.",
    ["source"],
)
SOURCE_PASS_RATIO = Gauge(
    "ratchet_learner_source_pass_ratio",
    "Fraction of correct responses in the last step's groups of one of several sources, 0..1.",
    ["source"],
)
SOURCE_SHARE_RATIO = Gauge(
    "ratchet_learner_source_share_ratio", "Share of the prompts that one of several sources gets now, 0..1.", ["source"]
)
SOURCE_GROUPS = Counter(
    "ratchet_learner_source_groups",
    "Groups of one of several sources by what became of them: kept for a step, or why they were dropped.",
    ["source", "outcome"],
)
SOURCE_TOKENS = Counter(
    "ratchet_learner_source_sampled_tokens",
    "Response tokens consumed of one of several sources, those of dropped groups included.",
    ["source"],
)
CHECKPOINT_SECONDS = Histogram(
    "ratchet_learner_checkpoint_seconds",
    "Seconds from the step that a checkpoint holds until it was complete on the disk.",
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900),
)
CHECKPOINT_STANDSTILL_SECONDS = Histogram(
    "ratchet_learner_checkpoint_standstill_seconds",
    "Seconds for which a checkpoint kept the learner from its next step: all of the writing, or the copy alone where it is "
    "written in the background.",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900),
)
CHECKPOINT_VERSION = Gauge(
    "ratchet_learner_checkpoint_version", "Policy version of the newest checkpoint; 0 before the first."
)
CHECKPOINT_TIMESTAMP = Gauge(
    "ratchet_learner_checkpoint_timestamp_seconds",
    "When the newest checkpoint was complete, in seconds since 1970; before the first, when training began.",
)
DISK_FREE_BYTES = Gauge("ratchet_learner_disk_free_bytes", "Free space on the disk of the run folder.")
DISK_SIZE_BYTES = Gauge("ratchet_learner_disk_size_bytes", "Size of the disk of the run folder.")
REDIS_USED_BYTES = Gauge("ratchet_redis_used_memory_bytes", "Memory that the Redis server uses.")
REDIS_LIMIT_BYTES = Gauge(
    "ratchet_redis_memory_limit_bytes",
    "Memory that the Redis server may use: its maxmemory, or that of its host where none is set.",
)
SYNC_SECONDS = Histogram(
    "ratchet_learner_weight_sync_seconds",
    "Seconds from announcing a policy version until every replica confirmed it.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
SYNCS = Counter("ratchet_learner_weight_syncs", "Broadcasts of weights by outcome.", ["outcome"])
WEIGHT_BYTES = Counter(
    "ratchet_learner_weight_bytes",
    "Bytes of weights that left the learner: whole buckets, or delta, what changed in them. A broadcast counts once, however "
    "many members it has; what replicas fetch counts each time.",
    ["form"],
)
DELTA_FALLBACKS = Counter(
    "ratchet_learner_delta_fallbacks",
    "Buckets that went out whole though weights.delta is set, by reason: no_base (the first version, or after a failure), "
    "member_without_base (a member of the broadcast has not proved the version before), too_much_changed, not_held (a "
    "replica did not hold the bucket that changed, and fetched it).",
    ["reason"],
)
LEFT_BEHIND = Counter(
    "ratchet_learner_left_behind_replicas",
    "Replicas that the learner went on without, because they were late to confirm a version or gone.",
)
CATCH_UPS = Counter(
    "ratchet_learner_weight_catch_ups",
    "Versions that a replica has fetched by itself, outside a broadcast, and proved.",
)
GAP_NATS = Gauge(
    "ratchet_learner_weight_gap_nats", "Largest probe gap that a replica reported after the last broadcast, in nats."
)
GAP_LIMIT_NATS = Gauge(
    "ratchet_learner_weight_gap_limit_nats",
    "Probe gap in nats above which the run ends, because a replica holds other weights.",
)
GENERATION = Gauge(
    "ratchet_learner_pg_generation", "Generation of the weight group; it grows by 1 with every join or leave."
)
REPLICAS = Gauge("ratchet_learner_replicas", "Replicas in the weight group; 0 while it forms.")
REPLICA_RANKS = Gauge(
    "ratchet_learner_replica_ranks", "Engine workers of all live replicas, each on a device of its own."
)
LIVE_REPLICAS = Gauge(
    "ratchet_learner_live_replicas",
    "Live replicas by state after the last broadcast: in_step (confirmed the version sent), behind (did not, or joined "
    "since), left_out (for a while, after a failure).",
    ["state"],
)

begin_dead_groups("learner")
for _outcome in ("trained", "skipped_step", "zero_variance", "single", "stale", "repeated", "dead"):
    GROUPS.labels(_outcome)
for _verdict in ("swap", "pass_rate_fell", "roll_back"):
    REFERENCE_VERDICTS.labels(_verdict)
for _outcome in ("confirmed", "failed"):
    SYNCS.labels(_outcome)
for _form in ("whole", "delta"):
    WEIGHT_BYTES.labels(_form)
for _reason in ("no_base", "member_without_base", "too_much_changed", "not_held"):
    DELTA_FALLBACKS.labels(_reason)
for _state in ("in_step", "behind", "left_out"):
    LIVE_REPLICAS.labels(_state)
GPU_HOUR_PRICE.set(math.nan)
