"""A TrainEngine in one process over a table of bigram logits: real gradients, plain SGD, no DeepSpeed."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.engine.head import token_statistics
from learner.engine.protocol import Backward, GradientStep, GradientSum, LossFunction, Policy, TokenStatistics
from learner.engine.reference_weights import debiased_decay
from learner.objective.ratios import segment_mean
from services.run.checkpoint_files import Damaged

R = TypeVar("R")


class BigramEngine:
    rank = 0
    world_size = 1
    device = torch.device("cpu")
    packs_rows = True
    shares_prompts = True

    def __init__(self, vocabulary: int = 17, seed: int = 0) -> None:
        self.logits = torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(seed))
        self.reference = self.logits.clone()
        self.earlier_reference = self.logits.clone()
        self.reference_is_current = True
        self.average_weight = 1.0
        self.gradient = torch.zeros_like(self.logits)
        self.teachers: list[Tensor] = []
        self.calls: list[str] = []
        self.disk_is_slow = False
        """Whether what is saved in the background is written only once it is waited for."""
        self.damaged: dict[str, Damaged] = {}
        """What `damage` finds, by the checkpoint's name."""
        self.learning_rates: list[float] = []

    def _forward(self, micro_batch: MicroBatch, table: Tensor) -> TokenStatistics:
        hidden = torch.eye(len(table))[micro_batch.token_ids.flatten()[micro_batch.head_index]]
        statistics = token_statistics(
            hidden, table.t(), micro_batch.target_ids, micro_batch.temperature, chunk=8, differentiates_entropy=True
        )
        # Its logits stand for hidden states, and what is read backwards for what is predicted of them.
        mean = segment_mean((hidden @ table)[micro_batch.counts], micro_batch.counted)
        return TokenStatistics(*statistics, hidden=mean, predicted=mean.flip(-1).tanh())

    def token_statistics(self, micro_batches: Sequence[MicroBatch], policy: Policy) -> list[TokenStatistics]:
        self.calls.append(policy if isinstance(policy, str) else f"teacher {policy}")
        with torch.no_grad():
            own = {"current": self.logits, "reference": self.reference}
            table = own[policy] if isinstance(policy, str) else self.teachers[policy]
            return [self._forward(m, table) for m in micro_batches]

    def backward(self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R]) -> Backward[R]:
        self.calls.append("backward")
        total, records = 0.0, []
        for gradient, value, record in self._gradients(micro_batches, loss):
            self.gradient += gradient
            total += value
            records.append(record)
        return Backward(total, records)

    def backward_one_by_one(
        self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R], total: GradientSum[R]
    ) -> Backward[R]:
        self.calls.append("backward one by one")
        whole, records = 0.0, []
        for gradient, value, record in self._gradients(micro_batches, loss):
            total.add(record, [gradient], 1)
            whole += value
            records.append(record)
        total.write([self.gradient])
        return Backward(whole, records)

    def _gradients(
        self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R]
    ) -> Iterator[tuple[Tensor, float, R]]:
        """Fillers add nothing."""
        for micro_batch in micro_batches:
            if len(micro_batch.sequence_index) == 0:
                continue
            table = self.logits.clone().requires_grad_()
            share, record = loss(micro_batch, self._forward(micro_batch, table))
            yield torch.autograd.grad(share, table)[0], share.item(), record

    def step(self, learning_rate: float) -> GradientStep:
        norm = float(self.gradient.norm())
        if not math.isfinite(norm):
            self.discard_gradients()
            return GradientStep(math.nan, math.inf, applied=False)
        self.logits -= learning_rate * self.gradient
        self.gradient = torch.zeros_like(self.logits)
        self.learning_rates.append(learning_rate)
        self.reference_is_current = False
        return GradientStep(norm, math.inf, applied=True)

    def discard_gradients(self) -> None:
        self.calls.append("discard")
        self.gradient = torch.zeros_like(self.logits)

    def ratchet_reference(self) -> None:
        self.earlier_reference = self.reference
        self.reference = self.logits.clone()
        self.reference_is_current = True

    def roll_back_reference(self) -> None:
        self.reference = self.earlier_reference
        self.reference_is_current = False

    def blend_reference(self, decay: float, *, debiased: bool = False) -> None:
        if debiased:
            decay, self.average_weight = debiased_decay(decay, self.average_weight)
        self.reference.lerp_(self.logits, 1 - decay)
        self.reference_is_current = decay == 0

    def weight_shapes(self, dtype: torch.dtype | None) -> list[tuple[str, Tensor]]:
        return [("bigram", self.logits.to("meta", dtype))]

    def copy_weights(self, into: Mapping[str, Tensor]) -> None:
        into["bigram"].copy_(self.logits)

    def sequence_logps(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        log_p = self.logits.log_softmax(-1)
        return [[float(log_p[a, b]) for a, b in itertools.pairwise(tokens)] for tokens in sequences]

    def save(self, folder: Path, *, in_background: bool = False) -> None:
        self.calls.append("save in background" if in_background else "save")
        state = {
            "logits": self.logits.tolist(),
            "reference": self.reference.tolist(),
            "earlier": self.earlier_reference.tolist(),
            "same": self.reference_is_current,
        }
        (folder / "bigram.json").write_text(json.dumps(state))

    def is_saved(self, *, wait: bool) -> bool:
        return wait or not self.disk_is_slow

    def damage(self, folder: Path) -> Damaged | None:
        return self.damaged.get(folder.name)

    def load(self, folder: Path) -> None:
        state = json.loads((folder / "bigram.json").read_text())
        self.logits = torch.tensor(state["logits"])
        self.reference = torch.tensor(state["reference"])
        self.earlier_reference = torch.tensor(state["earlier"])
        self.reference_is_current = state["same"]

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.save(folder)

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        return tensor.clone()

    def broadcast_bytes(self, payload: bytes | None) -> bytes:
        return payload or b""

    def barrier(self) -> None:
        pass

    def close(self) -> None:
        pass
