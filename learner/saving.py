"""When a checkpoint is complete: every rank has written its part, the state is beside them, and the groups are acknowledged.

    begin ──▶ parts being written, in the background or at once ──▶ committed ──▶ groups acknowledged

One checkpoint at a time. What is saved is the state at `begin`; steps that are taken while it is written are not in it, and
neither are the groups that they trained on, which stay claimed until the next one.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learner.checkpoint import Checkpoints
from learner.intake.collector import Owed
from learner.intake.intake import Intake
from learner.metrics import (
    CHECKPOINT_SECONDS,
    CHECKPOINT_STANDSTILL_SECONDS,
    CHECKPOINT_TIMESTAMP,
    CHECKPOINT_VERSION,
)
from learner.ranks import Team
from learner.records import Records
from learner.run_state import RunState
from services.clock import now_s
from services.config import RunConfig
from services.metrics import waiting
from services.run.best_checkpoint import best_checkpoints
from services.run.folder import RunFolder

log = logging.getLogger("ratchet.learner")


@dataclass(frozen=True)
class _Pending:
    """A checkpoint whose parts are being written."""

    policy_version: int
    staging: Path
    state: dict[str, Any]
    settled: Sequence[Owed]
    """Claims of the groups that it holds as settled."""
    begun_s: float


class Saving:
    """Saves the run. On rank 0, in the training loop's thread; every rank writes its part."""

    def __init__(self, config: RunConfig, *, team: Team, state: RunState, intake: Intake, records: Records) -> None:
        """state: shared with the training loop."""
        settings, folder = config.learner.checkpoint, RunFolder(config.folder)
        self._in_background = settings.background
        self._team = team
        self._state = state
        self._intake = intake
        self._records = records
        self.checkpoints = Checkpoints(
            folder.checkpoints,
            settings.keep,
            best=lambda: [one.checkpoint for one in best_checkpoints(folder, settings.best_by)[: settings.keep_best]],
        )
        """The folder that they go to."""
        self._pending: _Pending | None = None
        self._version: int | None = None

    @property
    def version(self) -> int | None:
        """The policy version of the newest checkpoint, the one that is being written included; None: there is none."""
        return self._version

    def resume(self, checkpoint: Path) -> None:
        """Say that the run goes on from this one."""
        self._version = self._state.policy_version
        CHECKPOINT_VERSION.set(self._version)
        self.checkpoints.put_aside_newer(checkpoint)

    def begin(self) -> None:
        """Save everything at this step boundary, and return as soon as steps may be taken again: where that is in the background,
        once every rank has a copy of its part in host memory and the checkpoint before this one is complete."""
        begun_s = now_s()
        self.finish()
        version = self._state.policy_version
        staging = self.checkpoints.begin(version)
        try:
            self._team.save(staging, in_background=self._in_background)
        except Exception:
            self.checkpoints.abandon(staging)
            raise
        with self._intake.lock:
            state = {
                **self._state.to_dict(),
                "ledger": self._intake.to_dict(),
                "prompts": self._intake.plan_to_dict(),
                "counts": self._records.counts(),
            }
            settled = self._intake.settled_claims()
        self._pending = _Pending(version, staging, state, settled, begun_s)
        self._version = version
        if not self._in_background:
            self.finish()
        CHECKPOINT_STANDSTILL_SECONDS.observe(now_s() - begun_s)

    def look(self) -> None:
        """Complete the checkpoint that is being written, if every rank has written its part."""
        self._complete(wait=False)

    def finish(self) -> None:
        """Complete the checkpoint that is being written, if there is one.

        Waits for: the disk, to which every rank writes its part.
        Until: there is no deadline of its own; ranks wait for each other up to the deadline of collectives.
        Ended by: the last rank's last byte, or an error of the disk on any rank.
        Metric: ratchet_waiting{room="learner", awaiting="checkpoint"}.
        """
        if self._pending is not None:
            with waiting("learner", "checkpoint"):
                self._complete(wait=True)

    def finish_after(self, error: BaseException) -> None:
        """Complete it, although training has ended by this error: what is copied may still become durable. Never raises."""
        if self._pending is None or not self._team.is_in_step:
            return
        try:
            self.finish()
        except Exception as fault:
            log.warning("the checkpoint of step %s was not completed after %r: %s", self._version, error, fault)

    def _complete(self, *, wait: bool) -> None:
        pending = self._pending
        if pending is None:
            return
        try:
            if not self._team.is_saved(wait=wait):
                return
            self.checkpoints.commit(pending.staging, pending.policy_version, pending.state)
        except Exception:
            self._pending = None
            self.checkpoints.abandon(pending.staging)
            raise
        self._pending = None
        self._intake.acknowledge(pending.settled)
        CHECKPOINT_SECONDS.observe(now_s() - pending.begun_s)
        CHECKPOINT_VERSION.set(pending.policy_version)
        CHECKPOINT_TIMESTAMP.set_to_current_time()
