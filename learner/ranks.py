"""The learner's ranks as one: rank 0 decides, every rank does the same collective work in the same order.

Rank 0 calls the methods of `Team`; each sends its order to the other ranks, which sit in `follow`. With one rank nothing
is sent. Only rank 0 knows streams, clocks and signals, so ranks cannot disagree.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor

from learner.batch.step_batch import assemble
from learner.engine.protocol import TrainEngine
from learner.publish.publisher import torch_dtype
from learner.step.learner_step import learner_step
from learner.step.report import StepReport
from services.config import RunConfig
from services.wire.codec import decode, encode
from services.wire.score import ScoredGroup


class _Order(msgspec.Struct, frozen=True):
    kind: Literal["step", "snapshot", "ratchet", "roll_back", "save", "load", "export", "finish"]
    groups: tuple[bytes, ...] = ()
    policy_version: int = 0
    learning_rate: float = 0.0
    full_ess_ratio: float | None = None
    token_ids: tuple[int, ...] = ()
    folder: str = ""


@dataclass(frozen=True)
class TakenStep:
    report: StepReport
    lag_tokens: dict[int, int]
    """Lag in steps -> response tokens that reached the loss."""


@dataclass(frozen=True)
class TakenSnapshot:
    tensors: list[tuple[str, Tensor]]
    """Empty on ranks other than 0."""
    probe_logp: list[float]


class Team:
    """All ranks of the learner, seen from rank 0."""

    def __init__(self, config: RunConfig, engine: TrainEngine) -> None:
        self._config, self.engine = config, engine
        self.is_in_step = True
        """False once rank 0 failed in the midst of what it had told the others to do: they wait in a collective there, and
        nothing that is sent reaches them."""

    def step(
        self,
        groups: Sequence[ScoredGroup],
        policy_version: int,
        learning_rate: float,
        full_ess_ratio: float | None = None,
    ) -> TakenStep:
        raw = tuple(encode(group) for group in groups) if self.engine.world_size > 1 else ()
        order = _Order(
            "step",
            groups=raw,
            policy_version=policy_version,
            learning_rate=learning_rate,
            full_ess_ratio=full_ess_ratio,
        )
        with self._together(order):
            return self._step(groups, order)

    def snapshot(self, probe: tuple[int, ...]) -> TakenSnapshot:
        """Copies of the weights in the dtype they travel in, and the log-probs of the probe under exactly those."""
        with self._together(_Order("snapshot", token_ids=probe)):
            return self._snapshot(probe)

    def ratchet(self) -> None:
        with self._together(_Order("ratchet")):
            self.engine.ratchet_reference()

    def roll_back(self) -> None:
        """The reference is again the one before the last `ratchet`."""
        with self._together(_Order("roll_back")):
            self.engine.roll_back_reference()

    def save(self, folder: Path) -> None:
        with self._together(_Order("save", folder=str(folder))):
            self.engine.save(folder)

    def load(self, folder: Path) -> None:
        with self._together(_Order("load", folder=str(folder))):
            self.engine.load(folder)

    def export(self, folder: Path) -> None:
        with self._together(_Order("export", folder=str(folder))):
            self.engine.export(folder)

    def finish(self) -> None:
        with self._together(_Order("finish")):
            pass

    def follow(self) -> None:
        """What ranks other than 0 do until rank 0 finishes."""
        while True:
            order = msgspec.msgpack.decode(self.engine.broadcast_bytes(None), type=_Order)
            if order.kind == "step":
                groups = [decode(raw, ScoredGroup) for raw in order.groups]
                self._step(groups, order)
            elif order.kind == "snapshot":
                self._snapshot(order.token_ids)
            elif order.kind == "ratchet":
                self.engine.ratchet_reference()
            elif order.kind == "roll_back":
                self.engine.roll_back_reference()
            elif order.kind == "save":
                self.engine.save(Path(order.folder))
            elif order.kind == "load":
                self.engine.load(Path(order.folder))
            elif order.kind == "export":
                self.engine.export(Path(order.folder))
            else:
                return

    @contextlib.contextmanager
    def _together(self, order: _Order) -> Iterator[None]:
        """Inside, rank 0 does its part of the order."""
        self.is_in_step = False
        if self.engine.world_size > 1:
            self.engine.broadcast_bytes(msgspec.msgpack.encode(order))
        yield
        self.is_in_step = True

    def _step(self, groups: Sequence[ScoredGroup], order: _Order) -> TakenStep:
        batch = assemble(groups, order.policy_version, self._config.learner)
        report = learner_step(
            self.engine,
            batch,
            self._config.learner,
            learning_rate=order.learning_rate,
            full_ess_ratio=order.full_ess_ratio,
        )
        lags, tokens = torch.unique(batch.lag_steps[batch.mask].clamp(min=0), return_counts=True)
        return TakenStep(report, dict(zip(lags.tolist(), tokens.tolist(), strict=True)))

    def _snapshot(self, probe: tuple[int, ...]) -> TakenSnapshot:
        probe_logp = self.engine.sequence_logp(probe)
        return TakenSnapshot(self.engine.snapshot(torch_dtype(self._config.model.dtype)), probe_logp)
