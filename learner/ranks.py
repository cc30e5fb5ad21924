"""The learner's ranks as one: rank 0 decides, and every rank does the same collective work in the same order.

Rank 0 calls the methods of `Team`; each sends its order to the other ranks, which sit in `follow`. With one rank nothing is
sent. Only rank 0 knows streams, clocks and signals, so the ranks cannot disagree.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor

from learner.batch.sift import SiftedGroup, Tally
from learner.batch.step_batch import batch_of
from learner.engine.policy_model import model_dtype
from learner.engine.protocol import TrainEngine
from learner.step.learner_step import learner_step
from learner.step.measure import SeenByRanks
from learner.step.report import StepReport
from services.config import RunConfig
from services.run.checkpoint_files import Damaged


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    """One learner step, as rank 0 orders it."""

    groups: tuple[SiftedGroup, ...]
    tally: Tally
    policy_version: int
    learning_rate: float
    full_ess_ratio: float | None


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    kind: Literal[
        "step", "probe", "snapshot", "ratchet", "roll_back", "save", "is_saved", "damage", "load", "export", "finish"
    ]
    step: _Step | None = None
    probes: tuple[tuple[int, ...], ...] = ()
    folder: str = ""
    flag: bool = False
    """What "save" is given as in_background, and "is_saved" as wait."""


@dataclass(frozen=True)
class TakenStep:
    """What a learner step did; the same on every rank."""

    report: StepReport
    lag_tokens: dict[int, int]
    """Lag in learner steps -> number of response tokens with that lag that reached the loss."""
    seen: "SeenTokens | None" = None
    """On rank 0, where `learner.kept_groups_mib` keeps groups and every optimizer step came to its backward; None elsewhere."""


@dataclass(frozen=True)
class SeenTokens:
    """What a learner step saw of the response tokens of its batch, sequence after sequence. On the CPU."""

    current_logp: Tensor
    """float32 [T], nats."""
    one_way_weight: Tensor
    """float32 [T]; 0 at tokens that do not count."""


class Team:
    """All ranks of the learner, seen from rank 0."""

    def __init__(self, config: RunConfig, engine: TrainEngine) -> None:
        self._settings = config.learner.model_copy(update={"packed_rows": engine.packs_rows})
        self._dtype = model_dtype(config.model)
        self.engine = engine
        self.is_in_step = True
        """False once rank 0 has failed in the midst of an order: the other ranks wait in a collective of that order, and nothing
        that is sent now would reach them."""

    def step(
        self,
        groups: Sequence[SiftedGroup],
        tally: Tally,
        *,
        policy_version: int,
        learning_rate: float,
        full_ess_ratio: float | None = None,
    ) -> TakenStep:
        """Take one learner step. groups: those that reach the loss. tally: of everything consumed. policy_version: before the
        step. learning_rate: the schedule's. full_ess_ratio: see `learner_step`."""
        step = _Step(
            groups=tuple(groups),
            tally=tally,
            policy_version=policy_version,
            learning_rate=learning_rate,
            full_ess_ratio=full_ess_ratio,
        )
        with self._together(_Order(kind="step", step=step)):
            return self._step(step)

    def probe_logps(self, probes: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """Log-probs of each probe's tokens after the first under the current weights, nats."""
        with self._together(_Order(kind="probe", probes=tuple(probes))):
            return self.engine.sequence_logps(probes)

    def weight_shapes(self) -> list[tuple[str, Tensor]]:
        """What `snapshot` copies, in the dtype it travels in, as tensors on the meta device."""
        return self.engine.weight_shapes(self._dtype)

    def snapshot(self, probes: Sequence[tuple[int, ...]], into: Mapping[str, Tensor]) -> list[list[float]]:
        """Copy the weights into the tensors of `weight_shapes`' names (`TrainEngine.copy_weights`), and return the log-probs of
        each probe's tokens after the first under exactly those weights, nats."""
        order = _Order(kind="snapshot", probes=tuple(probes))
        with self._together(order):
            return self._snapshot(order.probes, into)

    def ratchet(self) -> None:
        """Set the reference policy to the current policy."""
        with self._together(_Order(kind="ratchet")):
            self.engine.ratchet_reference()

    def roll_back(self) -> None:
        """Set the reference policy to the one before the last `ratchet`."""
        with self._together(_Order(kind="roll_back")):
            self.engine.roll_back_reference()

    def save(self, folder: Path, *, in_background: bool = False) -> None:
        """Write weights, optimizer and reference into a folder (`TrainEngine.save`); all is there once `is_saved`."""
        with self._together(_Order(kind="save", folder=str(folder), flag=in_background)):
            self.engine.save(folder, in_background=in_background)

    def is_saved(self, *, wait: bool) -> bool:
        """Whether every rank has written its part of the last `save` (`TrainEngine.is_saved`)."""
        with self._together(_Order(kind="is_saved", flag=wait)):
            return self.engine.is_saved(wait=wait)

    def damage(self, folder: Path) -> Damaged | None:
        """The first tensor file in a checkpoint that is not as it was written; None: there is none. Reads all of it."""
        with self._together(_Order(kind="damage", folder=str(folder))):
            return self.engine.damage(folder)

    def load(self, folder: Path) -> None:
        """Read what `save` has written."""
        with self._together(_Order(kind="load", folder=str(folder))):
            self.engine.load(folder)

    def export(self, folder: Path) -> None:
        """Write the model as a Hugging Face folder."""
        with self._together(_Order(kind="export", folder=str(folder))):
            self.engine.export(folder)

    def finish(self) -> None:
        """Let the other ranks return from `follow`."""
        with self._together(_Order(kind="finish")):
            pass

    def follow(self) -> None:
        """Carry out what rank 0 orders, until it finishes. Called by every other rank.

        Waits for: the next order of rank 0, which waits for groups, evaluations and replicas in between.
        Until: the deadline of collectives: deadlines.first_replica_s, deadlines.groups_s and deadlines.evaluation_s together.
        Ended by: an order, or the end of rank 0, which breaks the collective.
        Metric: those of rank 0, which alone exports metrics: see what it waits for in ratchet_waiting{room="learner"}.
        """
        while True:
            order = msgspec.msgpack.decode(self.engine.broadcast_bytes(None), type=_Order)
            if order.step is not None:
                self._step(order.step)
            elif order.kind == "probe":
                self.engine.sequence_logps(order.probes)
            elif order.kind == "snapshot":
                self._snapshot(order.probes, {})
            elif order.kind == "ratchet":
                self.engine.ratchet_reference()
            elif order.kind == "roll_back":
                self.engine.roll_back_reference()
            elif order.kind == "save":
                self.engine.save(Path(order.folder), in_background=order.flag)
            elif order.kind == "is_saved":
                self.engine.is_saved(wait=order.flag)
            elif order.kind == "damage":
                self.engine.damage(Path(order.folder))
            elif order.kind == "load":
                self.engine.load(Path(order.folder))
            elif order.kind == "export":
                self.engine.export(Path(order.folder))
            else:
                return

    @contextlib.contextmanager
    def _together(self, order: _Order) -> Iterator[None]:
        """Send the order to the other ranks; inside, rank 0 does its own part of it."""
        self.is_in_step = False
        if self.engine.world_size > 1:
            self.engine.broadcast_bytes(msgspec.msgpack.encode(order))
        yield
        self.is_in_step = True

    def _step(self, order: _Step) -> TakenStep:
        batch = batch_of(order.groups, order.tally, order.policy_version)
        seen: list[SeenByRanks] = []
        keeps = self.engine.rank == 0 and self._settings.kept_groups_mib > 0
        report = learner_step(
            self.engine,
            batch,
            self._settings,
            learning_rate=order.learning_rate,
            full_ess_ratio=order.full_ess_ratio,
            observe=seen.append if keeps else lambda _: None,
        )
        lags, tokens = torch.unique(batch.lag_steps[batch.mask].clamp(min=0), return_counts=True)
        return TakenStep(
            report, dict(zip(lags.tolist(), tokens.tolist(), strict=True)), _together(seen, len(batch.mask))
        )

    def _snapshot(self, probes: Sequence[tuple[int, ...]], into: Mapping[str, Tensor]) -> list[list[float]]:
        logps = self.engine.sequence_logps(probes)
        self.engine.copy_weights(into)
        return logps


def _together(seen: Sequence[SeenByRanks], tokens: int) -> SeenTokens | None:
    """What the optimizer steps of one batch saw; None if it is not all of the batch's tokens."""
    if not seen or sum(len(part.logp) for part in seen) != tokens:
        return None
    return SeenTokens(
        torch.cat([part.logp for part in seen]).cpu(), torch.cat([part.one_way_weight for part in seen]).cpu()
    )
