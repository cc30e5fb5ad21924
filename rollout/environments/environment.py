"""What an environment is: one conversation's counterpart, which opens it, answers each message, and says when it is over.

A replica makes one for each conversation, `Class(**environment.options)`, and calls it from an asyncio loop in a thread of its
own: `reset` once, `step` after each message, `close` in the end, whatever came before. What conversations share, such as a
connection pool, belongs to the class or the module.

Whatever an environment raises, answers late or answers wrongly is its own fault: the conversation is begun again with another
one, and after environment.attempts its group goes to `dead`. It is never a reward of 0. What the policy did wrong, such as a call
of a tool that does not exist, is no fault: answer it in words. A call that blocks holds up the other conversations of
the replica until its deadline: await, or use asyncio.to_thread. These names are stable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

Message = Mapping[str, Any]
"""A chat message as templates take it: `role` ("user", "tool" or "system") and `content`, a text, and what else the template
reads."""
Tool = Mapping[str, Any]
"""A tool as templates take it: {"type": "function", "function": {"name", "description", "parameters": JSON schema}}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a conversation is about: a row of the dataset."""

    prompt: Any
    """Text, or chat messages."""
    reference: Any
    """The row's reference answer: any JSON value."""
    options: Mapping[str, Any]
    """The row's options."""
    row: int
    """Place in the dataset, from 0."""
    seed: int
    """The same for all conversations of a group, which are compared with each other: draw from it what is random."""

    @property
    def messages(self) -> list[Message]:
        """The row's prompt as messages."""
        return [{"role": "user", "content": self.prompt}] if isinstance(self.prompt, str) else list(self.prompt)


@dataclass(frozen=True, slots=True)
class Start:
    """How a conversation begins."""

    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    """Tools that the template tells the policy of."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What an environment answers to one message."""

    messages: Sequence[Message] = ()
    """What the policy reads next; may be empty where the conversation is done."""
    done: bool = False
    reward: float | None = None
    """For this turn, where there is one; those of a conversation are added up (grader "environment")."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """For the metrics: "tool_errors", names of tools whose calls failed in this turn, "unreadable" for calls that cannot be read;
    "tool_seconds", name -> how long each call took."""
    history: Start | None = None
    """In place of `messages`, where the environment rewrites what came before: the whole conversation as it goes on. The policy's
    sequence begins again with it."""


@runtime_checkable
class Environment(Protocol):
    """One conversation's counterpart.

    An attribute `gives_rewards` may say whether its turns have rewards: `ratchet config` then knows whether there is something
    for the grader "environment" to pass on, or for learner.advantage.turns to compare.
    """

    async def reset(self, subject: Subject) -> Start:
        """Begin. Called once, first."""

    async def step(self, message: Message) -> Turn:
        """Answer a message of the policy: `role` is "assistant", `content` its text, special tokens but the last included;
        `tokens` has how many the policy read before it and said in it."""

    async def close(self) -> None:
        """Let go of what the conversation held. Called once, last, also after a fault; what it raises is only logged."""
