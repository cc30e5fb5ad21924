"""[environment]: with whom the policy talks, and how long."""

from typing import Any

from pydantic import Field

from services.config.base import Strict


class EnvironmentConfig(Strict):
    """The environment that answers the policy. Without this section each response is one answer to one prompt."""

    name: str = Field(min_length=1)
    """The environment: "guess", or one that an installed package brings (docs/environments.md)."""
    options: dict[str, Any] = {}
    """Options of the environment; its page says which it knows."""
    max_turns: int = Field(default=8, ge=1)
    """Most messages of the policy in one conversation. One that is not done by then is cut, and counts as such."""
    max_turn_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of one message of the policy; a longer one is cut, which ends the conversation. Default: what is left of
    rollout.sampling.max_tokens, which bounds all messages of a conversation together."""
    max_words_tokens: int | None = Field(default=None, ge=1)
    """Most tokens that the environment may say between two messages of the policy. More is a fault of the environment. Default:
    half of model.max_length."""
    turn_s: float = Field(default=60.0, gt=0.0)
    """Seconds that the environment may take for one answer. Later is a fault of the environment."""
    attempts: int = Field(default=4, ge=1)
    """Times that a conversation is begun when the environment fails; then its group goes to `dead`, and is never scored 0."""
    open_conversations: int | None = Field(default=None, ge=1)
    """Most conversations of a replica at the same time, those that wait for the environment included. Default: twice
    rollout.max_concurrent_sequences. Raise it where the environment is slow and the engine is idle."""
