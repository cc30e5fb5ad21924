"""What makes the host wait for a GPU happens a fixed number of times a step, and never once a micro-batch.

A GPU has no say here: every call whose result the host needs, or whose size depends on values, is counted on the CPU. On one
H200 there were 855 a step of 9 micro-batches (docs/benchmarks.md).
"""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from learner.batch.micro_batch import MicroBatch
from learner.batch.step_batch import assemble
from learner.engine.policy_model import inputs
from learner.engine.protocol import Backward, LossFunction, R, TokenStatistics
from learner.step.learner_step import learner_step
from tests.fakes.train_engine import BigramEngine
from tests.learner.every_objective import VARIANTS, settings
from tests.learner.tiny import scored_group

WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "bincount",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "is_nonzero",
    "equal",
}
WAIT_IN = {"minpro"}
"""Objectives that ask once a micro-batch, for the length of its longest sequence."""


class Waits(TorchDispatchMode):
    """Counts what a GPU would make the host wait for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for indices in args[1:2]
            if isinstance(indices, (list, tuple))
            for index in indices
        )
        sized_by_values = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in WAITS or by_mask or sized_by_values:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


class Watched(BigramEngine):
    """Counts in the loss, which is called once a micro-batch."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = Waits()
        self.losses = 0

    def backward(self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R]) -> Backward[R]:
        def watched(micro_batch: MicroBatch, statistics: TokenStatistics) -> tuple[Tensor, R]:
            self.losses += 1
            with self.waits:
                return loss(micro_batch, statistics)

        return super().backward(micro_batches, watched)


@pytest.mark.parametrize("baseline", ["mean", "minimum_variance"])
@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - WAIT_IN))
def test_no_loss_waits(variant: str, baseline: str) -> None:
    config = settings(variant, rows_per_micro_batch=1, zero_variance="train")
    advantage = config.advantage.model_copy(update={"baseline": baseline})
    if config.advantage.baseline not in ("mean", "minimum_variance"):
        advantage = config.advantage
    config = config.model_copy(update={"advantage": advantage})
    engine = Watched()
    engine.teachers = [engine.logits.flip(0)] * len(config.teachers)
    groups = [scored_group(i, rewards=[1.0, 0.0, 0.25], temperature=0.7) for i in range(4)]
    learner_step(engine, assemble(groups, 0, config), config, learning_rate=0.1)
    assert engine.losses > 1
    assert not engine.waits.seen


def test_what_would_wait_is_counted() -> None:
    lengths, values = torch.tensor([2, 1]), torch.arange(3.0)
    with Waits() as waits:
        values[values > 1]
        values[values > 1] = 0.0
        lengths.repeat_interleave(lengths)
        lengths.repeat_interleave(lengths, output_size=3)
        values[lengths]
        float(values.sum())
        torch.bincount(lengths)
    assert waits.seen == {"index": 1, "index_put_": 1, "repeat_interleave": 1, "_local_scalar_dense": 1, "bincount": 1}


def test_a_model_is_told_which_tokens_count_by_their_places() -> None:
    config = settings("grpo")
    batch = assemble([scored_group(0, rewards=[1.0, 0.0])], 0, config)
    from learner.batch.packing import pack

    (micro_batch,) = pack(batch, row_tokens=24, rows_per_micro_batch=2)
    *_, temperature, counts, _ = inputs(micro_batch, torch.device("cpu"))
    assert temperature is None
    assert counts is not None
    assert counts.tolist() == list(range(len(micro_batch.counts)))
