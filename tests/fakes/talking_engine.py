"""An engine that says what it is told to, and remembers what it was asked.

TalkingEngine(lambda asked: [5, 6, 1])     # the tokens that it says to an asked Prompt
"""

import asyncio
from collections.abc import Callable

from rollout.engine import EngineFailed
from services.wire.codec import Array
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory, VersionSpan


class TalkingEngine:
    def __init__(self, says: Callable[[Prompt], list[int]], *, seconds: float = 0.0) -> None:
        self.says = says
        self.seconds = seconds
        self.asked: list[Prompt] = []
        self.policy_version = 0
        self.running = 0
        self.most_running = 0
        self.dead: str | None = None

    async def sample(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        if self.dead:
            raise EngineFailed(self.dead)
        self.asked.append(prompt)
        version = self.policy_version
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(self.seconds)
        self.running -= 1
        wanted = self.says(prompt)
        ids = wanted[: prompt.max_tokens]
        return (
            Trajectory(
                token_ids=Array.of(ids, "<i4"),
                behavior_logp=Array.of([-0.5 - 0.001 * len(self.asked)] * len(ids), "<f4"),
                spans=(VersionSpan(version, 0, len(ids)),),
                finish_reason="stop" if len(ids) == len(wanted) else "length",
                text=f"message {len(self.asked)}",
            ),
        )
