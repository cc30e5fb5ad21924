"""What a replica exports, besides the engine's own metrics (`vllm:*`)."""

from prometheus_client import Counter, Gauge, Histogram

POLICY_VERSION = Gauge("ratchet_rollout_policy_version", "Policy version that new tokens are sampled under.")
READY = Gauge("ratchet_rollout_ready", "1 while the replica holds proven weights and takes prompts.")
GROUPS = Counter(
    "ratchet_rollout_groups", "Groups sampled, by outcome; anything but handed_over needs a look.", ["outcome"]
)
SAMPLED_TOKENS = Counter("ratchet_rollout_sampled_tokens", "Response tokens sampled.")
for _outcome in ("handed_over", "overtaken", "dead"):
    GROUPS.labels(_outcome)
FINISHED = Counter(
    "ratchet_rollout_trajectories", "Trajectories by finish reason; length and turns mean cut off.", ["finish_reason"]
)
for _reason in ("stop", "length", "turns"):
    FINISHED.labels(_reason)
RUNNING = Gauge("ratchet_rollout_running_sequences", "Sequences in the engine now.")
GROUP_SECONDS = Histogram(
    "ratchet_rollout_group_seconds",
    "Seconds from claiming a prompt to handing its group over.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900),
)
SWAPS = Counter(
    "ratchet_rollout_weight_swaps",
    "Policy versions swapped in, by kind: exchange, with what was prepared beside the running weights, or reload, in the pause; "
    "the first of an engine is a reload.",
    ["kind"],
)
for _kind in ("exchange", "reload"):
    SWAPS.labels(_kind)
TRANSFER_SECONDS = Histogram(
    "ratchet_rollout_weight_transfer_seconds",
    "Seconds of receiving and checking a policy version while sampling goes on.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
SAMPLING_GAP_SECONDS = Histogram(
    "ratchet_rollout_sampling_gap_seconds",
    "Seconds that sampling stood still for a swap.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
WEIGHT_GAP_NATS = Gauge(
    "ratchet_rollout_weight_gap_nats",
    "Largest difference of a probe's log-probs between replica and learner after the last swap, in nats; should be near 0.",
)
