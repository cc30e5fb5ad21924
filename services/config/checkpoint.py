"""[learner.checkpoint]: when the learner saves its state, and what may differ when it goes on from it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from services.config.base import Strict
from services.config.effect import OnlyAbove, OnlyWith

Ingredient = Literal[
    "model.path",
    "learner.teachers",
    "seed",
    "prompts.source",
    "prompts.grader",
    "prompts.template",
    "prompts.shuffle",
    "evaluation.prompts",
    "versions",
]
"""What a run is made of, each by the setting that names it; services/run/made_of.py compares them."""


def _split(value: object) -> object:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


class CheckpointConfig(Strict):
    """When the learner saves what it needs to go on after a stop or a crash."""

    every_steps: int = Field(default=50, ge=1)
    """Learner steps between checkpoints. After a crash at most this many steps are repeated; a clean stop saves one too."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept on disk, the newest ones. With 2, a damaged one costs the steps since the one before it; with 1, the
    run."""
    keep_best: Annotated[int, OnlyWith("evaluation")] = Field(default=0, ge=0)
    """Checkpoints kept besides, the best ones by held-out accuracy. Only those count whose policy version was evaluated: let
    learner.checkpoint.every_steps be a multiple of evaluation.every_steps."""
    best_by: Annotated[Literal["avg_at_k", "pass_at_k"], OnlyAbove(".keep_best", 0)] = "avg_at_k"
    """What makes a checkpoint the best: the mean over held-out prompts of the fraction of responses that are correct, or the
    fraction of prompts with at least one correct response."""
    background: bool = True
    """Whether training goes on while a checkpoint is written: the steps stand still only for a copy into host memory, of the
    size that `ratchet plan` says. Where that much is not free, checkpoints are written at once, with a warning. false: always at
    once."""
    replay_steps: int = Field(default=0, ge=0)
    """Steps whose groups the run folder keeps whole, the newest ones, for `ratchet replay`. A step can be replayed if every step
    since a checkpoint below it was kept: keep x every_steps covers all since the oldest one."""
    accept_changed: Annotated[tuple[Ingredient, ...], BeforeValidator(_split), Field(strict=False)] = ()
    """What may differ from what the checkpoint was trained on: "model.path", "seed", "prompts.source", "prompts.grader",
    "prompts.template", "prompts.shuffle", "learner.teachers", "evaluation.prompts" or "versions". A run that goes on with
    another model, other problems or other versions is refused otherwise."""

    @property
    def kept(self) -> int:
        """Checkpoints on the disk at most, without the one that is being written."""
        return self.keep + self.keep_best
