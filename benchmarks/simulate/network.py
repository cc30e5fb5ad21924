"""The wires of the weights: how long a group takes to meet and a version to reach each member, by assumption.

    gloo    all connect to all, and find each other by keys in one store; a bucket goes down a binomial tree, whole at each node
    nccl    members meet at rank 0; a bucket goes along a ring in chunks, and the next one follows it
    http    each member fetches every bucket from the learner, whose network card all of them share

A member that is gone stops what would go on through it: its subtree, what follows it on the ring, the meeting of all.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from services.errors import WeightSyncError
from services.wire.weights import Rendezvous, WeightManifest

LINK_BYTES_S = 12.5e9  # 100 Gbit/s at each host
HOP_S = 50e-6
STORE_OP_S = 20e-6  # the rendezvous store answers one member at a time
LOOK_EVERY_S = 0.02  # as in services/weights/process_group.py
CHUNK_BYTES = 1 << 19  # NCCL's
NCCL_START_S = 0.5
NCCL_MEMBER_S = 1e-3
Backend = Literal["gloo", "nccl", "http"]


@dataclass
class Moved:
    """What has gone over the wires of the weights."""

    by_learner: int = 0
    in_all: int = 0


class Generation:
    """One meeting, and what is sent to those who came."""

    def __init__(self, rendezvous: Rendezvous, is_gone: Callable[[int], bool]) -> None:
        """is_gone: whether the member with this rank does nothing any more, or not now."""
        self.rendezvous = rendezvous
        self.here: set[int] = set()
        self.formed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_gone = is_gone
        self._arrivals: dict[tuple[int, int], asyncio.Future[None]] = {}  # version, rank
        self.is_over = False

    def arrival(self, version: int, rank: int) -> "asyncio.Future[None]":
        """When all of a version has reached a member."""
        if self.is_over:
            raise WeightSyncError("rank 0 has left the generation")
        key = (version, rank)
        if key not in self._arrivals:
            self._arrivals[key] = asyncio.get_running_loop().create_future()
        return self._arrivals[key]

    def end(self, why: str) -> None:
        """All who wait here are told."""
        self.is_over = True
        for future in (self.formed, *self._arrivals.values()):
            if not future.done():
                future.set_exception(WeightSyncError(why))
                future.exception()  # it may be that nobody waits


class Network:
    """All wires."""

    def __init__(self, backend: Backend, is_gone: Callable[[str], bool]) -> None:
        """is_gone: of a replica."""
        self.backend: Backend = backend
        self.moved = Moved()
        self._is_gone = is_gone
        self._generation: Generation | None = None
        self._sending: asyncio.Task[None] | None = None
        self._link_free_s = 0.0

    async def meet(self, rendezvous: Rendezvous, arrived: Callable[[int], None]) -> None:
        """The learner's end of a meeting: over when all are there and connected."""
        generation = self._of(rendezvous)
        known: set[int] = set()
        while len(known) < rendezvous.size - 1:
            for rank in generation.here - known:
                arrived(rank)
            known |= generation.here
            await asyncio.sleep(LOOK_EVERY_S + STORE_OP_S * (rendezvous.size - 1 - len(known)))
            if generation.is_over:
                raise WeightSyncError("called off")
        await asyncio.sleep(self._connecting_s(rendezvous.size))
        if generation.is_over or any(map(generation.is_gone, range(1, rendezvous.size))):
            raise WeightSyncError("a member left while the group connected")
        generation.formed.set_result(None)

    async def join(self, rendezvous: Rendezvous, rank: int) -> None:
        """A member's end of it."""
        generation = self._of(rendezvous)
        await asyncio.sleep(STORE_OP_S * rendezvous.size)  # each sets its key, and all do it at once
        generation.here.add(rank)
        await asyncio.wait_for(asyncio.shield(generation.formed), rendezvous.timeout_s)

    async def send(self, manifest: WeightManifest) -> None:
        """Bucket after bucket to every member that can be reached; over when rank 0 has sent what it has to."""
        generation = self._generation
        assert generation is not None
        size = generation.rendezvous.size
        reached = self._reached(generation, size)
        took_s = [self._takes_s(bucket.size_bytes, size) for bucket in manifest.buckets]
        total = sum(bucket.size_bytes for bucket in manifest.buckets)
        self.moved.in_all += total * len(reached)
        self.moved.by_learner += total * (math.ceil(math.log2(size)) if self.backend == "gloo" else 1)
        await asyncio.sleep(sum(took_s) + self._last_s(size))
        for rank in reached:
            if not (arrival := generation.arrival(manifest.policy_version, rank)).done():
                arrival.set_result(None)
        if len(reached) < size - 1:
            await asyncio.Event().wait()  # it hangs: nobody tells rank 0
        self._generation = generation

    async def received(self, manifest: WeightManifest, rank: int) -> None:
        """Done when a member has all of a version."""
        generation = self._generation
        if generation is None or generation.rendezvous.pg_generation != manifest.pg_generation:
            raise WeightSyncError("the generation is over")
        await asyncio.shield(generation.arrival(manifest.policy_version, rank))

    async def fetch(self, sizes: Sequence[int]) -> None:
        """A version from the learner's server: its card serves all who fetch, a piece of each in turn."""
        pieces = 16
        for _ in range(pieces):
            piece = sum(sizes) / pieces
            now_s = asyncio.get_running_loop().time()
            self._link_free_s = max(self._link_free_s, now_s) + piece / LINK_BYTES_S
            self.moved.by_learner += round(piece)
            self.moved.in_all += round(piece)
            await asyncio.sleep(self._link_free_s - now_s + HOP_S)

    def leave(self) -> None:
        """Rank 0 leaves the generation."""
        if self._generation is not None:
            self._generation.end("rank 0 has left the generation")
            self._generation = None

    def _of(self, rendezvous: Rendezvous) -> Generation:
        if self._generation is None or self._generation.rendezvous.pg_generation < rendezvous.pg_generation:
            self.leave()
            names = {rank: replica_id for replica_id, rank in rendezvous.first_ranks.items()}
            self._generation = Generation(rendezvous, lambda rank: self._is_gone(names[rank]))
        if self._generation.rendezvous.pg_generation > rendezvous.pg_generation:
            raise WeightSyncError("the generation is over")
        return self._generation

    def _connecting_s(self, size: int) -> float:
        if self.backend == "gloo":
            return size * size * STORE_OP_S + size * HOP_S  # each reads the address of each from one store
        return NCCL_START_S + size * NCCL_MEMBER_S

    def _takes_s(self, size_bytes: int, size: int) -> float:
        if self.backend == "gloo":
            return math.ceil(math.log2(size)) * (size_bytes / LINK_BYTES_S + HOP_S)
        return size_bytes / LINK_BYTES_S + HOP_S

    def _last_s(self, size: int) -> float:
        """What the end of the last bucket takes to the last member, when rank 0 has sent it."""
        return (size - 1) * (CHUNK_BYTES / LINK_BYTES_S + HOP_S) if self.backend == "nccl" else 0.0

    def _reached(self, generation: Generation, size: int) -> list[int]:
        """The ranks that the bytes come to."""
        reached = {0}
        for rank in range(1, size):
            before = rank - 1 if self.backend == "nccl" else rank & (rank - 1)
            if before in reached and not generation.is_gone(rank):
                reached.add(rank)
        return sorted(reached - {0})
