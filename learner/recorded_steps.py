"""Learner steps kept whole, so that `ratchet replay` can take them again: what went in, and what came out.

One file for each step, written by rank 0 once the step's weights are copied, whole or not at all. The newest
`learner.checkpoint.replay_steps` are kept.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from learner.step.report import StepReport
from services.errors import InputError
from services.run.json_text import finite
from services.wire.score import ScoredGroup
from services.wire.weights import Probe

log = logging.getLogger("ratchet.learner")

SCHEMA = 1


class RecordedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One learner step."""

    schema: int = SCHEMA
    policy_version: int
    """Before the step; the step is the one after it."""
    groups: list[ScoredGroup]
    """Everything consumed, in order of arrival; `sift` says again what reaches the loss."""
    learning_rate: float
    """The schedule's."""
    full_ess_ratio: float | None
    """See `learner_step`."""
    report: dict[str, Any] = {}
    """The figures of the step's report; None for one that was not finite."""
    probes: list[tuple[list[int], list[float]]] = []
    """Token sequences, and their log-probs under the weights after the step: what tells those weights from others."""

    @property
    def step(self) -> int:
        """The step, from 1: the policy version that it made."""
        return self.policy_version + 1


class RecordedSteps:
    """The folder `replay` of a run."""

    def __init__(self, folder: Path, keep: int) -> None:
        """keep: the number of steps; 0: none is written."""
        self._folder = folder
        self._keep = keep
        self._taken: RecordedStep | None = None

    def take(self, step: RecordedStep, report: StepReport) -> None:
        """Hold a step that was taken until its weights are copied."""
        if self._keep:
            self._taken = msgspec.structs.replace(step, report=finite(asdict(report)))

    def write(self, policy_version: int, probes: Sequence[Probe]) -> None:
        """Write the step that made this version. A disk that refuses it costs the replay, not the run."""
        taken = self._taken
        self._taken = None
        if taken is None or taken.step != policy_version:
            return
        seen = [(list(probe.token_ids), list(probe.logp)) for probe in probes]
        try:
            self.put(msgspec.structs.replace(taken, probes=seen))
        except OSError as fault:
            log.warning("step %d is not kept for `ratchet replay`: %s", taken.step, fault)

    def put(self, step: RecordedStep) -> None:
        """Write one step, and delete the oldest ones beyond those that are kept. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / ".draft"
        draft.write_bytes(msgspec.msgpack.encode(step))
        draft.rename(self._folder / f"step-{step.step:08d}.msgpack")
        for old in sorted(recorded(self._folder).values())[: -self._keep]:
            old.unlink()

    def forget_after(self, policy_version: int) -> None:
        """Delete the steps after a version that the run goes on from: others will be taken in their place."""
        for step, path in recorded(self._folder).items():
            if step > policy_version:
                path.unlink()


def recorded(folder: Path) -> Mapping[int, Path]:
    """The steps that are kept, and their files."""
    return {int(path.stem.removeprefix("step-")): path for path in sorted(folder.glob("step-*.msgpack"))}


def read_recorded(path: Path) -> RecordedStep:
    """Read one step. Raises InputError where the file is damaged or another version of ratchet wrote it."""
    try:
        step = msgspec.msgpack.decode(path.read_bytes(), type=RecordedStep)
    except (OSError, msgspec.MsgspecError) as fault:
        raise InputError(f"{path} cannot be read: {fault}; replay another step") from fault
    if step.schema != SCHEMA:
        raise InputError(
            f"{path} has schema {step.schema}, this version of ratchet reads {SCHEMA}; replay it with the version that wrote it"
        )
    return step
