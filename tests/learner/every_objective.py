"""Settings for each of Ratchet's objectives, so that what must hold for all of them is tried on all of them."""

from typing import Any

from services.config.learner import LearnerConfig
from services.config.objectives.registry import OURS

MEMBERS = OURS
"""Type -> settings class of every objective."""
VARIANTS: dict[str, dict[str, Any]] = {
    **{kind: {"type": kind} for kind in MEMBERS},
    "owpo with dual clip": {"type": "owpo", "dual_clip": 3.0},
    "popo held close": {"type": "popo", "alpha": 3.0, "beta": 0.5, "length_normalized": True},
    "popo without a twin": {"type": "popo", "alpha": 0.0, "beta": 0.0},
    "popo_ratio held close": {"type": "popo_ratio", "similarity": 3.0},
    "acpo, narrow": {"type": "acpo", "base": 0.02, "alpha": 0.3},
    "decoupled_ppo, log-linear": {"type": "decoupled_ppo", "proximal": "log_linear"},
    "decoupled_ppo, truncated": {"type": "decoupled_ppo", "above_cap": "truncate", "mismatch_cap": 1.5},
    "opd with outcome": {"type": "opd", "outcome": 0.5},
    "mopd with weights": {"type": "mopd", "weights": [3.0, 1.0]},
}


def settings(variant: str, **changes: object) -> LearnerConfig:
    """[learner] with small rows, and everything else as the objective was published."""
    objective = VARIANTS[variant]
    needed: dict[str, object] = {
        "steps": 10,
        "groups_per_step": 3,
        "row_tokens": 24,
        "rows_per_micro_batch": 2,
        "stale_tokens": "train",
        "objective": objective,
    }
    if objective["type"] == "dr_grpo":
        needed["constant_tokens"] = 5
    needed["teachers"] = [{"path": f"teacher-{i}"} for i in range(MEMBERS[objective["type"]].teachers[0])]
    return LearnerConfig.model_validate({**needed, **changes})
