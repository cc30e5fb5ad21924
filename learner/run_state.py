"""What changes from step to step besides weights and groups, and goes into every checkpoint."""

from dataclasses import dataclass, field
from typing import Any

from learner.control import ratchet
from learner.control.ess import EssControl
from learner.control.ratchet import RatchetState, Verdict
from learner.step.report import StepReport
from services.config.learner import LearnerConfig
from services.errors import RatchetError
from services.run.made_of import MadeOf


@dataclass
class RunState:
    """Lives on rank 0; `to_dict` and `from_dict` carry it through a checkpoint."""

    settings: LearnerConfig
    ess_control: EssControl
    policy_version: int = 0
    """Number of learner steps behind the current weights."""
    issued: int = 0
    """Number of training groups issued in the whole run."""
    pg_generation: int = 0
    """Highest generation of the weight group so far: the stream server may lose its count, and none may come again."""
    evaluated_version: int | None = None
    """Policy version of the last evaluation; None before the first."""
    ratchet: RatchetState = field(default_factory=RatchetState)
    made_of: MadeOf = field(default_factory=dict)
    """What the run is made of now; the next start of the learner compares it."""
    skipped_in_a_row: int = 0
    """Number of steps since the last one that changed the weights; not saved, so each start of the learner counts from 0."""

    @classmethod
    def begin(cls, settings: LearnerConfig) -> "RunState":
        """The state of a run before its first step."""
        return cls(settings, EssControl(settings))

    def to_dict(self) -> dict[str, Any]:
        """JSON values for the checkpoint."""
        return {
            "policy_version": self.policy_version,
            "issued": self.issued,
            "pg_generation": self.pg_generation,
            "evaluated": self.evaluated_version,
            "ratchet": self.ratchet.to_dict(),
            "ess_control": self.ess_control.to_dict(),
            "made_of": self.made_of,
        }

    @classmethod
    def from_dict(cls, settings: LearnerConfig, saved: dict[str, Any]) -> "RunState":
        """Continue from a checkpoint, under today's settings: they may have changed since it was written."""
        return cls(
            settings,
            EssControl.from_dict(settings, saved["ess_control"]),
            policy_version=saved["policy_version"],
            issued=saved["issued"],
            pg_generation=saved.get("pg_generation", 0),  # checkpoints of before have none
            evaluated_version=saved["evaluated"],
            ratchet=RatchetState.from_dict(saved["ratchet"]),
        )

    @property
    def is_complete(self) -> bool:
        """Whether the last step of the run has been taken."""
        return self.policy_version >= self.settings.steps

    def count_step(self, report: StepReport) -> Verdict:
        """Take in one learner step, which makes a new policy version. Returns what the caller has to do with the reference.

        Raises RatchetError when max_skipped_steps in a row changed nothing.
        """
        self._count_skipped(report.skipped)
        self.policy_version += 1
        verdict = self._observe_for_reference(report)
        self.ess_control.observe(report)
        return verdict

    def _count_skipped(self, reason: str | None) -> None:
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if reason else 0
        if self.skipped_in_a_row >= self.settings.max_skipped_steps:
            raise RatchetError(
                f"{self.skipped_in_a_row} steps in a row changed nothing, the last because of {reason}; the run stops at "
                f"policy version {self.policy_version}. Lower learner.optimizer.learning_rate and start it again: it "
                "continues from its last checkpoint"
            )

    def _observe_for_reference(self, report: StepReport) -> Verdict:
        settings = self.settings.reference
        if report.skipped is not None or settings.type != "ratchet":
            return "not_due"
        self.ratchet, verdict = ratchet.observe(
            settings,
            self.ratchet,
            step=self.policy_version,
            pass_rate=report.pass_rate,
            optimizer_steps=report.optimizer_steps,
        )
        return verdict
