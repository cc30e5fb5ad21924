"""[learner.checkpoint]: when the learner saves its state, and what may differ when it goes on from it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from services.config.base import Strict

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
    """Checkpoints kept on disk, the newest ones."""
    accept_changed: Annotated[tuple[Ingredient, ...], BeforeValidator(_split), Field(strict=False)] = ()
    """What may differ from what the checkpoint was trained on: "model.path", "seed", "prompts.source", "prompts.grader",
    "prompts.template", "prompts.shuffle", "learner.teachers", "evaluation.prompts" or "versions". A run that goes on with
    another model, other problems or other versions is refused otherwise."""
