"""An engine without a model: it samples at once, takes weights at once, and fails when it is told to.

engine = FakeEngine()
await engine.start()
engine.policy_version = 3                     # as if version 3 had been swapped in
engine.dead = "out of memory"                 # every call raises EngineFailed from here on
engine.refuse_transfers = 1                   # the next stage_and_swap raises WeightSyncError and changes nothing

With an offer it fetches the bytes from the learner's weight server, and checks them.
"""

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import torch

from rollout.engine import BASE_VERSION, EngineFailed, SwapReport
from rollout.weights.fetch import Link, fetch_bucket
from services.clock import Deadline
from services.errors import WeightSyncError
from services.weights.buckets import allocate, check_digest, digest
from services.wire.codec import Array
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory, VersionSpan
from services.wire.weights import Rendezvous, WeightManifest, WeightOffer

VOCABULARY = 16


class FakeEngine:
    """Uniform over VOCABULARY tokens; each probe equals what the last manifest announced."""

    def __init__(self, *, world_size: int = 1, seconds_per_group: float = 0.0) -> None:
        self.policy_version = BASE_VERSION
        self.world_size = world_size
        self.seconds_per_group = seconds_per_group
        self.running_sequences = 0
        self.started = False
        self.stopped = False
        self.dead: str | None = None
        self.refuse_transfers = 0
        self.joined: list[Rendezvous] = []
        self.swapped: list[WeightManifest] = []
        self.fetched: list[int] = []
        self.sampled: list[Prompt] = []

    async def start(self) -> None:
        self._alive()
        self.started = True

    async def stop(self, *, with_process: bool = False) -> None:
        self.stopped = True

    async def sample(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        self._alive()
        self.running_sequences += prompt.group_size
        try:
            first_version = self.policy_version
            await asyncio.sleep(self.seconds_per_group)
            self._alive()
            trajectories = tuple(
                self._trajectory(prompt, prompt.seed + index, first_version) for index in range(prompt.group_size)
            )
        finally:
            self.running_sequences -= prompt.group_size
        self.sampled.append(prompt)
        return trajectories

    async def probe(self, token_ids: Sequence[int], deadline: Deadline) -> list[float]:
        self._alive()
        for probe in self.swapped[-1].probes if self.swapped else ():
            if probe.token_ids == tuple(token_ids):
                return list(probe.logp)
        return [-math.log(VOCABULARY)] * (len(token_ids) - 1)

    async def join(self, rendezvous: Rendezvous, replica_id: str) -> None:
        self._alive()
        if replica_id not in rendezvous.first_ranks:
            raise WeightSyncError(f"generation {rendezvous.pg_generation} was formed without {replica_id}")
        self.joined.append(rendezvous)

    async def stage_and_swap(
        self, manifest: WeightManifest, deadline: Deadline, offer: WeightOffer | None = None
    ) -> SwapReport:
        self._alive()
        if offer is None and (not self.joined or self.joined[-1].pg_generation != manifest.pg_generation):
            raise WeightSyncError(f"generation {manifest.pg_generation} was not joined")
        if self.refuse_transfers:
            self.refuse_transfers -= 1
            raise WeightSyncError("bucket 1 of 1 arrived with another digest")
        if offer is not None:
            await asyncio.to_thread(self._fetch, manifest, offer, deadline)
            self.fetched.append(manifest.policy_version)
        await asyncio.sleep(0)
        self.policy_version = manifest.policy_version
        self.swapped.append(manifest)
        return SwapReport(manifest.policy_version, 0.0, 0.0, self.running_sequences, "exchange")

    def _fetch(self, manifest: WeightManifest, offer: WeightOffer, deadline: Deadline) -> None:
        flats = allocate(manifest.buckets, torch.device("cpu"))
        with Link(offer.source) as link:
            for position, (bucket, flat) in enumerate(zip(manifest.buckets, flats, strict=True)):
                fetch_bucket(link, manifest.policy_version, position, flat, deadline)
                check_digest(bucket, digest(flat), str(position))

    def _trajectory(self, prompt: Prompt, seed: int, first_version: int) -> Trajectory:
        length = min(4, prompt.max_tokens)
        token_ids = np.random.default_rng(seed).integers(0, VOCABULARY, length)
        spans = [VersionSpan(first_version, 0, length)]
        if self.policy_version != first_version and length > 1:
            spans = [VersionSpan(first_version, 0, length // 2), VersionSpan(self.policy_version, length // 2, length)]
        return Trajectory(
            token_ids=Array.of(token_ids, "<i4"),
            behavior_logp=Array.of([-math.log(VOCABULARY)] * length, "<f4"),
            spans=tuple(spans),
            finish_reason="stop",
            text=" ".join(map(str, token_ids)),
        )

    def _alive(self) -> None:
        if self.dead is not None:
            raise EngineFailed(self.dead)
