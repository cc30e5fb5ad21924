"""The methods that are compared: each the [learner] settings that make it what it is, all else equal.

Weights are truncated at the sequence level at 8 everywhere but where the objective weighs for itself. Adam's beta2 is 0.95 and
gradients are cut at norm 1 alone, unlike the defaults of [learner.optimizer], but where the name says so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.config.learner import LearnerConfig
from services.errors import InputError

MEAN: dict[str, Any] = {"baseline": "mean"}
DEVIATION: dict[str, Any] = {"baseline": "mean", "normalize": "sample_std"}
OPOB: dict[str, Any] = {"baseline": "minimum_variance", "normalize": "none"}
ESS: dict[str, Any] = {"enabled": True}
NO_ESS: dict[str, Any] = {"enabled": False}
RATCHET: dict[str, Any] = {"type": "ratchet", "every_steps": 50}
LIMIT: dict[str, Any] = {"max_grad_norm_ratio": 2.0}
MEMORY: dict[str, Any] = {"beta2": 0.999}

METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"objective": {"type": "grpo"}, "advantage": DEVIATION, "ess": NO_ESS},
    "grpo_ess": {"objective": {"type": "grpo"}, "advantage": DEVIATION, "ess": ESS},
    "grpo_opob": {"objective": {"type": "grpo"}, "advantage": OPOB, "ess": NO_ESS},
    "vcpo": {"objective": {"type": "reinforce"}, "advantage": OPOB, "ess": ESS},
    "dapo": {"objective": {"type": "dapo"}},
    "dapo_2": {"objective": {"type": "dapo"}, "mini_batches": 2},  # as its preset; with one step its clip never acts
    "owpo": {"objective": {"type": "owpo"}, "advantage": MEAN, "ess": NO_ESS, "reference": RATCHET},
    "owpo_vc": {"objective": {"type": "owpo"}, "reference": RATCHET},
    # OWPO-VC with one part taken away.
    "owpo_vc_no_locking": {"objective": {"type": "owpo", "weight_low": 1.0}, "reference": RATCHET},
    "owpo_vc_no_acceleration": {"objective": {"type": "owpo", "weight_high": 1.0}, "reference": RATCHET},
    "owpo_vc_no_ratchet": {"objective": {"type": "owpo"}, "reference": {"type": "fixed"}},
    # Gradients cut to twice the mean norm of recent ones; beta2 of 0.999; both, which are the defaults of OWPO.
    "owpo_vc_limit": {"objective": {"type": "owpo"}, "reference": RATCHET, "optimizer": LIMIT},
    "owpo_vc_memory": {"objective": {"type": "owpo"}, "reference": RATCHET, "optimizer": MEMORY},
    "owpo_vc_steady": {"objective": {"type": "owpo"}, "reference": RATCHET, "optimizer": LIMIT | MEMORY},
    "grpo_steady": {"objective": {"type": "grpo"}, "advantage": DEVIATION, "ess": NO_ESS, "optimizer": LIMIT | MEMORY},
    # 16 optimizer steps a batch.
    "dapo_16": {"objective": {"type": "dapo"}, "mini_batches": 16},
    "acpo_16": {"objective": {"type": "acpo"}, "mini_batches": 16},
    "cispo_16": {"objective": {"type": "cispo"}, "mini_batches": 16},
    # Distillation, from teachers of the task's own.
    "opd": {"objective": {"type": "opd"}, "teachers": 1},
    "opd_outcome": {"objective": {"type": "opd", "outcome": 1.0}, "teachers": 1},
    "mopd": {"objective": {"type": "mopd"}, "teachers": 2},
    # As published, by objective.
    **{
        kind: {"objective": {"type": kind}}
        for kind in (
            "reinforce", "dr_grpo", "cispo", "gspo", "sapo", "acpo", "bapo", "minpro", "decoupled_ppo",
            "ppo_ewma", "popo", "popo_ratio", "asymre", "opmd", "p3o",
        )
    },
}  # fmt: skip
DEFAULT = ("grpo", "grpo_ess", "grpo_opob", "vcpo", "dapo", "owpo", "owpo_vc")
"""What the table compares unless it is told otherwise."""


def settings(
    method: str,
    *,
    lag: int,
    steps: int,
    groups_per_step: int,
    learning_rate: float,
    prompt_tokens: int,
    response_tokens: int,
    teachers: Sequence[Path] = (),
    schedule: str = "constant",
    zero_variance: str = "train",
) -> LearnerConfig:
    """The settings of one run. Groups are trained on whatever their age, and one sequence a row needs no attention mask."""
    own = dict(METHODS[method])
    optimizer = {
        "learning_rate": learning_rate,
        "schedule": schedule,
        "final_fraction": 0.1,
        "warmup_steps": 10,
        "beta2": 0.95,
        "max_grad_norm_ratio": 0.0,
        **own.pop("optimizer", {}),
    }
    if "teachers" in own:
        if len(teachers) < own["teachers"]:
            raise InputError(f"{method} distils from {own['teachers']} teachers and the task has {len(teachers)}")
        chosen = [{"path": str(path), "dtype": "float32"} for path in teachers[: own["teachers"]]]
        own = {**own, "teachers": chosen}
    if own["objective"]["type"] == "dr_grpo":
        own = {**own, "constant_tokens": response_tokens}
    return LearnerConfig.model_validate(
        {
            "steps": steps,
            "groups_per_step": groups_per_step,
            "max_lag": lag,
            "stale_tokens": "train",
            "zero_variance": zero_variance,
            "zero_stage": 0,
            "row_tokens": prompt_tokens + response_tokens,
            "rows_per_micro_batch": 4096,
            "head_chunk_tokens": 16384,
            "optimizer": optimizer,
            **own,
        }
    )
