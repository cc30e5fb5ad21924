"""What the learner exports."""

from prometheus_client import Counter, Gauge, Histogram

POLICY_VERSION = Gauge("ratchet_learner_policy_version", "Optimizer steps behind the current weights.")
REFERENCE_VERSION = Gauge("ratchet_learner_reference_version", "Policy version of the reference (the ratchet).")
REFERENCE_VERDICTS = Counter(
    "ratchet_learner_reference_verdicts",
    "What the ratchet decided: swap, pass_rate_fell (due, and the reference stayed), or roll_back.",
    ["verdict"],
)
STEP_SECONDS = Histogram(
    "ratchet_learner_step_seconds",
    "Seconds that a learner step took, without the wait for groups.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
SKIPPED_STEPS = Counter(
    "ratchet_learner_skipped_steps", "Steps that changed nothing because a number was not finite.", ["reason"]
)
SKIPPED_OPTIMIZER_STEPS = Counter(
    "ratchet_learner_skipped_optimizer_steps", "Optimizer steps that were not applied; several may make up a step."
)
TRAINED_TOKENS = Counter("ratchet_learner_trained_tokens", "Response tokens that reached a loss.")
GROUPS = Counter("ratchet_learner_groups", "Groups by what became of them.", ["outcome"])
OUTSTANDING = Gauge("ratchet_learner_outstanding_groups", "Groups issued and not settled; bounded by admission.")
LAG_WINDOW_STEPS = Gauge(
    "ratchet_learner_lag_window_steps", "Steps ahead that groups are issued now; at most learner.max_lag."
)
MEAN_REWARD = Gauge(
    "ratchet_learner_reward_mean", "Mean reward of the groups of the last step, those without variance included."
)
PASS_RATE = Gauge("ratchet_learner_pass_ratio", "Fraction of correct responses in the groups of the last step, 0..1.")
LOSS = Gauge("ratchet_learner_loss", "Loss of the last step.")
GRADIENT_NORM = Gauge("ratchet_learner_gradient_norm", "Euclidean norm before clipping, last step.")
GRADIENT_NORM_LIMIT = Gauge(
    "ratchet_learner_gradient_norm_limit", "What the last step's gradient was cut to where it was longer."
)
LEARNING_RATE = Gauge("ratchet_learner_learning_rate", "Learning rate of the last step, ESS factor included.")
ESS_RATIO = Gauge("ratchet_learner_ess_ratio", "Effective sample size over sequences in the last step, 0..1.")
TRUNCATED_ESS_RATIO = Gauge(
    "ratchet_learner_truncated_ess_ratio",
    "Effective sample size in the last step with importance weights cut to their cap, 0..1.",
)
LEARNING_RATE_FACTOR = Gauge(
    "ratchet_learner_learning_rate_factor", "What the ESS rule multiplied the last step's learning rate by."
)
ONE_WAY_BOUND_RATIO = Gauge(
    "ratchet_learner_one_way_bound_ratio",
    "Tokens whose one-way weight is at a bound, of those with that sign of advantage, last step, 0..1.",
    ["bound", "advantage"],
)
ONE_WAY_WEIGHT = Gauge(
    "ratchet_learner_one_way_weight",
    "Mean one-way weight of tokens with that sign of advantage, last step.",
    ["advantage"],
)
ONE_WAY_ESS_RATIO = Gauge(
    "ratchet_learner_one_way_ess_ratio",
    "Effective sample size in the last step of capped importance weights times mean one-way weights, 0..1.",
)
CLIPPED_RATIO = Gauge(
    "ratchet_learner_clipped_ratio", "Tokens with an advantage and, beyond a clip, no gradient, last step, 0..1."
)
SIGN_FLIPPED_RATIO = Gauge(
    "ratchet_learner_sign_flipped_ratio",
    "Tokens moved against their advantage, by the objective, or if distillation were added to it, last step, 0..1.",
    ["by"],
)
TRUNCATED_RATIO = Gauge("ratchet_learner_truncated_ratio", "Importance weights beyond the cap, last step, 0..1.")
REFERENCE_GAP_NATS = Gauge(
    "ratchet_learner_reference_gap_nats", "Mean log-ratio of current to reference policy per token, last step, in nats."
)
BASELINE_SHIFT = Gauge(
    "ratchet_learner_baseline_shift", "Mean distance of the minimum-variance baseline from the group mean, in reward."
)
ZERO_VARIANCE_RATIO = Gauge(
    "ratchet_learner_zero_variance_ratio", "Groups with equal rewards, of those of the last step, 0..1."
)
ENTROPY_NATS = Gauge("ratchet_learner_entropy_nats", "Mean entropy of a response token, last step, in nats.")
MISMATCH_NATS = Gauge(
    "ratchet_learner_mismatch_nats", "Estimated KL of behavior from current policy per token, last step, in nats."
)
MISMATCH_PART_NATS = Gauge(
    "ratchet_learner_mismatch_part_nats",
    "Parts of mismatch_nats, in nats: two engines with the same weights (engine_mismatch), engines and lag together "
    "(before_batch), several optimizer steps on one batch (within_batch).",
    ["part"],
)
POLICY_LAG_STEPS = Histogram(
    "ratchet_learner_policy_lag_steps",
    "Learner steps between sampling a token and training on it, mean of each step.",
    buckets=(0, 0.5, 1, 2, 4, 8, 16, 32, 64),
)
EVALUATION_RATIO = Gauge("ratchet_learner_evaluation_ratio", "Held-out accuracy, 0..1.", ["metric"])
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
SYNCS = Counter("ratchet_learner_weight_syncs", "Broadcasts by outcome.", ["outcome"])
GAP_NATS = Gauge(
    "ratchet_learner_weight_gap_nats", "Largest probe gap that a replica reported after the last broadcast, in nats."
)
GENERATION = Gauge("ratchet_learner_pg_generation", "Generation of the weight group; +1 on every join or leave.")
REPLICAS = Gauge("ratchet_learner_replicas", "Replicas in the weight group.")
