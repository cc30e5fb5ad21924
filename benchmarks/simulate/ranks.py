"""What learner ranks say to each other in a step and for a sync: the run's own `Team` over an engine that counts.

Only rank 0 is there, and does its own share of the work; what it sends and sums is what the others would take part in.
Seconds are assumed for wires (network.py) and measured here for what every rank does with the whole of a step.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from torch import Tensor

from benchmarks.simulate.network import HOP_S, LINK_BYTES_S
from learner.batch.sift import sift, tally
from learner.batch.step_batch import batch_of
from learner.ranks import Team
from services.config import RunConfig
from tests.fakes.train_engine import BigramEngine
from tests.learner.tiny import VOCABULARY, scored_group

MIB = 2**20


class CountingEngine(BigramEngine):
    """Rank 0 of many that all do as it does: where each rank fills in a place of its own, all have what it has."""

    def __init__(self, world_size: int) -> None:
        super().__init__()
        self.world_size = world_size
        self.sent: list[bytes] = []
        self.summed_bytes: list[int] = []

    def broadcast_bytes(self, payload: bytes | None) -> bytes:
        self.sent.append(payload or b"")
        return payload or b""

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        self.summed_bytes.append(tensor.numel() * tensor.element_size())
        by_rank = tensor.dim() == 1 and len(tensor) == self.world_size and not bool(tensor[1:].any())
        return tensor[:1].expand(self.world_size).clone() if by_rank else tensor.clone()


@dataclass(frozen=True)
class RankFigures:
    """One learner step, and one copy of the weights for a sync."""

    ranks: int
    tokens: int
    """Response tokens of the step."""
    order_mib: float
    """The step as rank 0 orders it: the groups, whole, to every rank."""
    orders_all_mib: float
    """The same over all wires."""
    collectives: int
    """Sums over all ranks in the step, without those of gradients."""
    read_s: float
    """What each rank takes to read the order and lay out the whole batch."""
    wire_s: float
    """The order on its way."""
    sync_order_bytes: int
    """What is ordered for a copy of the weights."""
    gather_gib: float
    """What crosses the wires to make the weights whole on rank 0, at ZeRO stage 3; nothing at other stages."""
    gather_s: float


def rank_figures(
    config: RunConfig,
    ranks: int,
    weights_bytes: int,
    parameters: int,
    *,
    groups: int = 64,
    group_size: int = 8,
    tokens: int = 256,
) -> RankFigures:
    """Take a step of so many groups, and copy the weights. weights_bytes, parameters: of the model that is synced."""
    engine = CountingEngine(ranks)
    team = Team(config, engine)
    rng = np.random.default_rng(0)
    scored = [
        scored_group(
            number,
            rewards=[float(index % 2) for index in range(group_size)],
            responses=rng.integers(0, VOCABULARY, (group_size, tokens)).tolist(),
        )
        for number in range(groups)
    ]
    kept = [sift(group, 0, config.learner) for group in scored]
    counted = tally(scored, kept)
    team.step(kept, counted, policy_version=0, learning_rate=1e-3)
    order, collectives = engine.sent[0] if engine.sent else b"", len(engine.summed_bytes)
    began_s = time.process_time()
    if order:
        msgspec.msgpack.decode(order)
    batch_of(kept, counted, 0)
    read_s = time.process_time() - began_s
    engine.sent.clear()
    team.snapshot(_probes(), {"bigram": torch.empty_like(engine.logits)})
    others = ranks - 1
    return RankFigures(
        ranks=ranks,
        tokens=groups * group_size * tokens,
        order_mib=len(order) / MIB,
        orders_all_mib=len(order) * others / MIB,
        collectives=collectives if others else 0,
        read_s=read_s,
        wire_s=len(order) / LINK_BYTES_S + others * HOP_S,
        sync_order_bytes=sum(map(len, engine.sent)),
        gather_gib=weights_bytes * others / 2**30,
        gather_s=(weights_bytes * others / ranks / LINK_BYTES_S + parameters * others * HOP_S) if others else 0.0,
    )


def _probes() -> Sequence[tuple[int, ...]]:
    return [tuple(place % VOCABULARY for place in range(first, first + 64)) for first in (0, 7)]
