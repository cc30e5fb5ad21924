"""InferenceEngine: what the sampling loop needs of an engine. The one real adapter is rollout/vllm/engine.py.

Weights reach an engine in two calls. `join` makes its workers members of one generation of the process group.
`stage_and_swap` receives one policy version beside the running weights, proves the bytes, and swaps between two engine
steps. Until the swap nothing has changed: a transfer that fails leaves the engine sampling under the weights it had.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.clock import Deadline
from services.errors import RatchetError
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory
from services.wire.weights import Rendezvous, WeightManifest

BASE_VERSION = -1
"""Policy version of an engine that has not received weights yet: it holds whatever it was started with."""


class EngineFailed(RatchetError):
    """The engine cannot sample any more; the replica ends and is started again."""


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What one change of weights cost."""

    policy_version: int
    transfer_s: float
    """From the request to receive until every worker held the proven bytes; sampling went on."""
    pause_s: float
    """How long sampling stood still for the swap."""
    running_sequences: int
    """In flight at the swap: they kept their cache or were prefilled again, as kv_after_swap says."""


class InferenceEngine(Protocol):
    """Samples groups under one policy version at a time. Called from one asyncio loop."""

    @property
    def policy_version(self) -> int:
        """Of the weights that new tokens are sampled under; BASE_VERSION before the first swap."""

    @property
    def world_size(self) -> int:
        """Engine workers: the ranks this replica takes in the process group. Known before `start`."""

    @property
    def running_sequences(self) -> int:
        """Trajectories asked for and not finished."""

    async def start(self) -> None:
        """Load the model. Raises EngineFailed when the engine does not come up, InputError when it is not for `device`."""

    async def stop(self) -> None:
        """End the engine and its workers; groups in flight raise EngineFailed. Safe to call twice."""

    async def sample(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        """One group: prompt.group_size trajectories. Temperature 0 is greedy: all are the same one, log-probs at 1.

        behavior_logp is that of the distribution sampled from, temperature included. Cancelling aborts the group.
        Raises EngineFailed when the engine is dead, InputError when the prompt does not fit the model.
        """

    async def probe(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probs (nats, temperature 1) of tokens 1.. given those before, under the weights held now.

        One fewer than token_ids. Never answered from a cache.
        """

    async def join(self, rendezvous: Rendezvous, replica_id: str) -> None:
        """Leave the generation before, if any, and become a member of this one; sampling goes on.

        Returns when the group is formed. Raises WeightSyncError after rendezvous.timeout_s; join the next generation.
        """

    async def stage_and_swap(self, manifest: WeightManifest, deadline: Deadline) -> SwapReport:
        """Receive manifest.policy_version from rank 0, verify every digest, swap between two engine steps.

        Sampling goes on during the transfer. Raises WeightSyncError, also when the deadline is reached, with nothing
        changed; the generation is then spent: join the next. Raises EngineFailed when the swap itself failed.
        """
