"""What a rollout hands over: the group of trajectories sampled for one prompt.

A trajectory is one sequence of tokens, in stretches of the policy and of an environment in turn. The policy's are `token_ids`,
one log-prob and one version each, and nothing else is on that axis: what is counted, averaged or trained on never meets a
token that nobody sampled. What the environment said stands beside them, in the turn that answers it.
"""

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from services.errors import WireError
from services.wire.codec import Array, record
from services.wire.prompt import Prompt

if TYPE_CHECKING:
    import numpy as np


class VersionSpan(msgspec.Struct, frozen=True, array_like=True):
    """Response tokens [start, end) were sampled under this policy version."""

    policy_version: int
    start: int
    end: int


FinishReason = Literal["stop", "length", "turns"]
"""Why a trajectory ended. length: cut by max_tokens, by the tokens of one turn or by the model's context. turns: it had all the
turns that the environment's settings allow."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the policy in a conversation, and the environment's words that it answers."""

    tokens: int
    """Tokens that the policy sampled in this turn, at least 1; the next so many of the trajectory's."""
    given: Array
    """int32 [G]: what the policy read since its last message, as it was rendered; empty before the first."""
    restarts: bool = False
    """Whether the sequence begins again: `given` is then a whole history, and nothing before it is attended to."""
    reward: float | None = None
    """What the environment gave for this turn; None where it gave nothing."""


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """One response, or the policy's part of one conversation, token by token."""

    token_ids: Array
    """int32 [L]: what the policy sampled, stop tokens included where there are any."""
    behavior_logp: Array
    """float32 [L], in nats: under the policy and temperature that sampled each token."""
    spans: tuple[VersionSpan, ...]
    """Which policy version sampled which tokens; the spans cover [0, L) in order, without gaps."""
    finish_reason: FinishReason
    text: str
    """The response, or the last message, as the verifier reads it: rollout.sampling.keep_special_tokens has a say."""
    turns: tuple[Turn, ...] = ()
    """The turns of a conversation, in order; their tokens sum to L. () for a response to the prompt alone."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def policy_versions(self) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
        """The policy version of each response token, int32 [L]. Raises WireError when the spans do not cover the response."""
        import numpy as np

        versions = np.empty(len(self), dtype=np.int32)
        reached = 0
        for span in self.spans:
            if span.start != reached or span.end <= span.start:
                raise WireError(f"version spans {self.spans} do not cover 0..{len(self)} in order")
            versions[span.start : span.end] = span.policy_version
            reached = span.end
        if reached != len(self):
            raise WireError(f"version spans {self.spans} end at {reached}, the response at {len(self)}")
        return versions

    @property
    def reward(self) -> float | None:
        """The sum of what the environment gave in all turns; None where it gave nothing."""
        given = [turn.reward for turn in self.turns if turn.reward is not None]
        return math.fsum(given) if given else None


def check_turns(trajectory: Trajectory) -> None:
    """Raises WireError when the turns of a trajectory do not make one sequence with its tokens."""
    for number, turn in enumerate(trajectory.turns, start=1):
        read = len(turn.given.numpy())
        if turn.tokens < 1:
            raise WireError(f"turn {number} has {turn.tokens} tokens of the policy; it takes at least one")
        if turn.restarts and read == 0:
            raise WireError(f"turn {number} restarts the sequence with nothing that is read before it")
        if number == 1 and read and not turn.restarts:
            raise WireError(f"turn 1 has {read} tokens between the prompt and the response; they belong to the prompt")
        if turn.reward is not None and not math.isfinite(turn.reward):
            raise WireError(f"turn {number} has the reward {turn.reward}, which is not a finite number")
    if trajectory.turns and (said := sum(turn.tokens for turn in trajectory.turns)) != len(trajectory):
        raise WireError(f"the turns have {said} tokens of the policy, the trajectory {len(trajectory)}")


@record("group", 3)
class Group(msgspec.Struct, frozen=True, kw_only=True):
    """All trajectories of one prompt."""

    prompt: Prompt
    trajectories: tuple[Trajectory, ...]
    replica_id: str
    """The replica that sampled it, for the log."""
