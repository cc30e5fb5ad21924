"""InferenceEngine: what a replica needs of an engine. The one real adapter is rollout/vllm/engine.py.

Weights reach an engine in two calls. `join` makes its workers members of one generation of the process group.
`stage_and_swap` receives one policy version while the old weights keep running, proves the bytes, and swaps between two
engine steps. Until the swap nothing has changed: a transfer that fails leaves the engine sampling under the weights it had.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from services.clock import Deadline
from services.errors import RatchetError
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer

BASE_VERSION = -1
"""Policy version of an engine that has not received weights yet: it holds those it was started with."""


SwapKind = Literal["exchange", "reload"]
"""How weights were swapped in: exchanged with those that were prepared beside the running ones, or reloaded in the pause."""


class EngineFailed(RatchetError):
    """The engine cannot sample any more; the replica ends and is started again."""


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What one change of weights cost."""

    policy_version: int
    transfer_s: float
    """From the request to receive until every worker held the proven bytes, prepared for the swap; sampling went on."""
    pause_s: float
    """How long sampling stood still for the swap: from the end of the step in progress until the engine went on."""
    running_sequences: int
    """Sequences in flight at the swap. They kept their cache or were prefilled again, as rollout.kv_after_swap says."""
    kind: SwapKind


class InferenceEngine(Protocol):
    """Samples groups under one policy version at a time. Called from one asyncio loop."""

    @property
    def policy_version(self) -> int:
        """The version of the weights that new tokens are sampled under; BASE_VERSION before the first swap."""

    @property
    def world_size(self) -> int:
        """Engine workers: the ranks this replica takes in the process group. Known before `start`."""

    @property
    def running_sequences(self) -> int:
        """Trajectories asked for and not finished."""

    async def start(self) -> None:
        """Load the model. Raises EngineFailed if the engine does not come up, InputError if it is not for `device`."""

    async def stop(self, *, with_process: bool = False) -> None:
        """End the engine and its workers; groups in flight raise EngineFailed. Safe to call twice.

        with_process: this process ends right afterwards, so that what goes with it is not put away first.
        """

    async def sample(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        """Sample one group: prompt.group_size trajectories.

        behavior_logp (nats) is that of the distribution sampled from, temperature included. Temperature 0 is greedy: all
        trajectories are the same, and their log-probs are those at temperature 1. Cancelling aborts the group. Raises
        EngineFailed if the engine is dead, InputError if the prompt does not fit the model.
        """

    async def probe(self, token_ids: Sequence[int], deadline: Deadline) -> list[float]:
        """Log-probs (nats, temperature 1) of each token but the first, given those before it, under the current weights.

        One fewer than token_ids. Never answered from a cache. Raises EngineFailed if the engine is dead, or does not answer
        for long after the deadline.
        """

    async def join(self, rendezvous: Rendezvous, replica_id: str) -> None:
        """Leave the previous generation, if any, and become a member of this one. Sampling goes on.

        Returns when the group is formed. Raises WeightSyncError if it is not, after rendezvous.timeout_s at the latest;
        then join the next generation. Raises EngineFailed if the engine does not answer for long after that. Cancelling gives
        it up.
        """

    async def stage_and_swap(
        self, manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None
    ) -> SwapReport:
        """Receive manifest.policy_version from rank 0, verify every digest, swap between two engine steps. offer: from where to
        fetch it instead; the engine then leaves its generation.

        Sampling goes on during the transfer. Raises WeightSyncError if it fails or the deadline passes: nothing has
        changed then, but the generation is spent; join the next. Raises EngineFailed if the swap itself failed or the engine
        does not answer for long after the deadline, InputError if there is no memory for the version or its swap. Cancelling
        gives the transfer up; a swap that has begun is done first.
        """
