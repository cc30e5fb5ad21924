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
    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=30)
        self._given: list[Tensor] = [torch.zeros(0)] * size

    def sum(self, rank: int, tensor: Tensor) -> Tensor:
        self._given[rank] = tensor
        self._barrier.wait()
        total = torch.stack(self._given).sum(0)
        self._barrier.wait()
        return total

    def abort(self) -> None:
        self._barrier.abort()


class RankEngine(BigramEngine):
    """Gradients are summed over the ranks at the step, as in the real engine."""

    def __init__(self, rank: int, world: World) -> None:
        super().__init__()
        self.rank, self.world_size, self._world = rank, world.size, world

    def step(self, learning_rate: float) -> GradientStep:
        self.gradient = self.sum_over_ranks(self.gradient)
        return super().step(learning_rate)

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        return self._world.sum(self.rank, tensor)


def on_ranks(size: int, work: Callable[[RankEngine], T]) -> list[T]:
    """`work` on every rank at once; its results in the order of the ranks."""
    world = World(size)

    def one(rank: int) -> T:
        try:
            return work(RankEngine(rank, world))
        except BaseException:
            world.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))
