"""[environment]: with whom the policy talks, and how long."""

from collections import Counter
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from services.config.base import Strict
from services.config.tools import McpTool, ToolConfig


class EnvironmentConfig(Strict):
    """The environment that answers the policy. Without this section each response is one answer to one prompt."""

    name: str = Field(min_length=1)
    """The environment: "tools", "agent", "guess", "openenv", "verifiers", or one that an installed package brings
    (docs/environments.md)."""
    options: dict[str, Any] = {}
    """Options of the environment; its page says which it knows."""
    tools: Annotated[tuple[ToolConfig, ...], Field(strict=False)] = ()
    """What the policy may call, for an environment that takes tools, as "tools" does: [[environment.tools]], each with a type."""
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

    @model_validator(mode="after")
    def tools_are_told_apart(self) -> Self:
        names = Counter(tool.name for tool in self.tools if not isinstance(tool, McpTool))
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f'two tools are named "{twice[0]}"; give each a name of its own')
        for number, tool in enumerate(self.tools):
            if tool.seconds > self.turn_s / 2:
                raise ValueError(
                    f"tools.{number}.seconds = {tool.seconds:g} is more than half of turn_s = {self.turn_s:g}, in which the "
                    "environment has to answer; lower the first or raise the second"
                )
        return self
