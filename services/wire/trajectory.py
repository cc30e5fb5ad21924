"""What a rollout hands over: the group of trajectories sampled for one prompt."""

from typing import Literal

import msgspec
import numpy as np

from services.errors import WireError
from services.wire.codec import Array, record
from services.wire.prompt import Prompt


class VersionSpan(msgspec.Struct, frozen=True, array_like=True):
    """Response tokens [start, end) were sampled under this policy version."""

    policy_version: int
    start: int
    end: int


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """One response, token by token."""

    token_ids: Array
    """int32 [L]: the response, stop token included when there is one."""
    behavior_logp: Array
    """float32 [L], in nats: under the policy and temperature that sampled each token."""
    spans: tuple[VersionSpan, ...]
    """Which policy version sampled which tokens; the spans cover [0, L) in order, without gaps."""
    finish_reason: Literal["stop", "length"]
    """Why it ended. length: cut by max_tokens or by the model's context."""
    text: str
    """The response as the verifier reads it: without special tokens, or with them (rollout.sampling.keep_special_tokens)."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def policy_versions(self) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
        """The policy version of each response token, int32 [L]. Raises WireError when the spans do not cover the response."""
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


@record("group", 2)
class Group(msgspec.Struct, frozen=True, kw_only=True):
    """All trajectories of one prompt."""

    prompt: Prompt
    trajectories: tuple[Trajectory, ...]
    replica_id: str
    """The replica that sampled it, for the log."""
