"""Several bigram engines as the ranks of one: threads that meet at a barrier for every collective."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from learner.engine.protocol import GradientStep
from tests.fakes.train_engine import BigramEngine

T = TypeVar("T")


class World:
    """What the ranks share: every collective is a meeting of all of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=30)
        self._given: list[Tensor] = [torch.zeros(0)] * size
        self._sent = b""

    def sum(self, rank: int, tensor: Tensor) -> Tensor:
        self._given[rank] = tensor
        self._barrier.wait()
        total = torch.stack(self._given).sum(0)
        self._barrier.wait()
        return total

    def broadcast(self, payload: bytes | None) -> bytes:
        """Rank 0 gives the payload, the others None; all get it."""
        if payload is not None:
            self._sent = payload
        self._barrier.wait()
        sent = self._sent
        self._barrier.wait()
        return sent

    def abort(self) -> None:
        self._barrier.abort()


class RankEngine(BigramEngine):
    """Gradients are summed over the ranks at the step, as in the real engine."""

    def __init__(self, rank: int, world: World) -> None:
        super().__init__()
        self.rank = rank
        self.world_size = world.size
        self._world = world

    def step(self, learning_rate: float) -> GradientStep:
        self.gradient = self.sum_over_ranks(self.gradient)
        return super().step(learning_rate)

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        return self._world.sum(self.rank, tensor)

    def broadcast_bytes(self, payload: bytes | None) -> bytes:
        return self._world.broadcast(payload)


def on_ranks(size: int, work: Callable[[RankEngine], T]) -> list[T]:
    """Do `work` on every rank at once; returns its results in the order of the ranks."""
    world = World(size)

    def one(rank: int) -> T:
        try:
            return work(RankEngine(rank, world))
        except BaseException:
            world.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))
