"""The names of a run's streams, in the order in which a group travels."""

EVALUATION_PROMPTS = "evaluation_prompts"
"""Held-out prompts, issued by the learner; replicas claim them before training prompts."""
PROMPTS = "prompts"
"""Training prompts, issued by the learner and claimed by the replicas."""
TRAJECTORIES = "trajectories"
"""Sampled groups, appended by the replicas and claimed by the verifier."""
SCORED = "scored"
"""Groups with a score for each trajectory, appended by the verifier and claimed by the learner."""
DEAD = "dead"
"""Groups that no step will train on, and why; appended by any room and claimed by the learner."""
ALL = (EVALUATION_PROMPTS, PROMPTS, TRAJECTORIES, SCORED, DEAD)
TRAINING = (PROMPTS, TRAJECTORIES, SCORED, DEAD)
"""Those that a training group goes through."""
