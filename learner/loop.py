"""The training loop of learner rank 0: claim, update, publish, issue, evaluate, checkpoint; one policy version a turn.

Order matters twice. Prompts are issued after the step that frees their credit. Groups are acknowledged after the
checkpoint that contains them: what a crash takes back comes again.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from learner.batch.sift import sift
from learner.checkpoint import Checkpoints, export_beside
from learner.control.ess import EssControl
from learner.control.ratchet import RatchetState, observe
from learner.control.schedule import scheduled_learning_rate
from learner.evaluation import evaluate, evaluation_prompts
from learner.intake.collector import LOOK_EVERY_S, Collector
from learner.intake.issuer import PromptIssuer
from learner.intake.ledger import Ledger
from learner.metrics import (
    CHECKPOINT_SECONDS,
    GROUPS,
    LAG_WINDOW_STEPS,
    OUTSTANDING,
    POLICY_VERSION,
    REFERENCE_VERDICTS,
    STEP_SECONDS,
)
from learner.publish.publisher import WeightPublisher, snapshot
from learner.ranks import Team
from learner.records import NOTHING_COUNTED, Records
from learner.step.report import StepReport
from services.clock import Deadline, now_s
from services.config import RunConfig
from services.datasets.dataset import Problem
from services.errors import RatchetError
from services.run.folder import RunFolder
from services.streams import IssueLog
from services.weights.process_group import bucket_device
from services.wire.score import ScoredGroup

log = logging.getLogger("ratchet.learner")

UNCONFIRMED_LOOK_EVERY_S = 0.05
"""While replicas take the newest weights: its credits wait for their word."""


@dataclass(frozen=True)
class HeldOut:
    """What an evaluation needs: the problems, their tokens, and a numbered log for the prompts of each one."""

    problems: Sequence[Problem]
    token_ids: Callable[[Problem], Sequence[int]]
    issue_log: Callable[[int], IssueLog]
    """From the policy version to a log that nothing was issued to yet."""
    attempt: int
    """Which start of the learner this is: results that an earlier one asked for are not taken for ours."""


class TrainingLoop:
    """Everything that changes during a run, and the order in which it does."""

    def __init__(
        self,
        config: RunConfig,
        team: Team,
        publisher: WeightPublisher,
        issuer: PromptIssuer,
        collector: Collector,
        ledger: Ledger,
        records: Records,
        held_out: HeldOut | None,
        probe: tuple[int, ...],
        stopping: Callable[[], bool],
    ) -> None:
        self._config, self._team, self._publisher, self._issuer = config, team, publisher, issuer
        self._collector, self._ledger, self._records, self._held_out = collector, ledger, records, held_out
        self._probe, self._stopping = probe, stopping
        self._checkpoints = Checkpoints(RunFolder(config.folder).checkpoints, config.learner.checkpoint.keep)
        self._version, self._checkpointed, self._issued, self._skipped = 0, -1, 0, 0
        self._evaluated: int | None = None
        self._ratchet = RatchetState()
        self._ess_control = EssControl(config.learner)

    def restore(self, *, weights_only: bool = False) -> None:
        """Continue from the latest checkpoint, if there is one. weights_only: to look at it, not to go on."""
        latest = self._checkpoints.latest()
        if latest is None:
            return
        state = self._checkpoints.state(latest)
        self._version = self._checkpointed = state["policy_version"]
        if not weights_only:
            self._issued, self._evaluated = state["issued"], state["evaluated"]
            self._ratchet = RatchetState.from_dict(state["ratchet"])
            self._ess_control = EssControl.from_dict(self._config.learner, state["ess_control"])
        self._team.load(latest)  # last: it takes the longest
        if weights_only:
            return
        self._issuer.restore(self._issued, self._ledger.unsettled(self._issued))
        log.info("resuming from policy version %d (%s)", self._version, latest.name)

    @staticmethod
    def saved_ledger(config: RunConfig) -> tuple[Ledger, dict[str, Any]]:
        """Ledger and counts of the latest checkpoint, or new ones."""
        latest = Checkpoints(RunFolder(config.folder).checkpoints, config.learner.checkpoint.keep).latest()
        if latest is None:
            return Ledger(), NOTHING_COUNTED
        state = Checkpoints.state(latest)
        return Ledger.restore(state["ledger"]), state["counts"]

    def run(self) -> bool:
        """To the last step, or until `stopping`; whether the last step was reached. A checkpoint is left in both cases."""
        self._publish()
        while self._version < self._config.learner.steps and not self._stopping():
            self._issue()
            if not self._evaluate_when_due():
                break
            if not self._take_step():
                break
            self._publish()
            if self._version % self._config.learner.checkpoint.every_steps == 0:
                self._checkpoint()
        done = self._version >= self._config.learner.steps and self._evaluate_when_due(last=True)
        if self._version != self._checkpointed or done:
            self._checkpoint()
        if done:
            export_beside(RunFolder(self._config.folder).export, self._team.export)
        return done

    def evaluate_only(self) -> bool:
        """One evaluation of the weights as they are; whether it came to an end."""
        self._publish()
        return self._evaluate_when_due(last=True)

    def groups(self) -> dict[str, object]:
        """The `groups` entry of the summary."""
        return self._ledger.counts(self._issued)

    def _issue(self) -> float:
        """Let the credits out; how long to wait before it is worth looking again, in seconds."""
        confirmed = self._publisher.confirmed_version
        if confirmed is not None:
            ahead = self._ess_control.steps_ahead
            self._issued = self._issuer.issue(self._ledger.outstanding, self._version, confirmed, ahead)
            LAG_WINDOW_STEPS.set(ahead)
        OUTSTANDING.set(self._ledger.outstanding(self._issued))
        return LOOK_EVERY_S if confirmed == self._version else UNCONFIRMED_LOOK_EVERY_S

    def _take_step(self) -> bool:
        """One optimizer step; False when `stopping` came first."""
        waited_from = now_s()
        groups = self._gather()
        if groups is None:
            return False
        start = now_s()
        settings = self._config.learner
        learning_rate = scheduled_learning_rate(settings.optimizer, self._version, settings.steps)
        taken = self._team.step(groups, self._version, learning_rate, self._ess_control.full_ratio)
        self._settle(groups, trained=taken.report.skipped is None)
        self._count_skipped(taken.report.skipped)
        self._version += 1
        POLICY_VERSION.set(self._version)
        self._ratchet_when_due(taken.report)
        self._ess_control.observe(taken.report)
        seconds = now_s() - start
        STEP_SECONDS.observe(seconds)
        self._records.step(
            self._version,
            taken,
            groups=groups,
            counts=self.groups(),
            reference_version=self._ratchet.reference_version,
            lag_window=self._ess_control.steps_ahead,
            waited_s=start - waited_from,
            seconds=seconds,
        )
        return True

    def _gather(self) -> list[ScoredGroup] | None:
        """Groups until groups_per_step of them will reach the loss, dropped ones included; None when `stopping`.

        A dropped group is settled at once and its credit goes out again, so a step never waits for groups that
        admission cannot let in.
        """
        settings, gathered, useful = self._config.learner, [], 0
        deadline = Deadline.after(self._config.deadlines.groups_s, "scored groups")
        while useful < settings.groups_per_step:
            group = self._collector.training_group(deadline, self._stop_or_fault, self._issue)
            if group is None:
                return None
            gathered.append(group)
            sifted = sift(group, self._version, settings)
            if sifted.drop is None:
                useful += 1
            else:
                self._ledger.drop(group.group.prompt.sequence_number, sifted.drop)
                GROUPS.labels(sifted.drop).inc()
                self._issue()
        return gathered

    def _settle(self, groups: list[ScoredGroup], *, trained: bool) -> None:
        for number in (group.group.prompt.sequence_number for group in groups):
            if self._ledger.is_settled(number):  # dropped while gathering
                continue
            if trained:
                self._ledger.train(number)
            else:
                self._ledger.drop(number, "skipped_step")
            GROUPS.labels("trained" if trained else "skipped_step").inc()

    def _stop_or_fault(self) -> bool:
        """While waiting for groups: weights that do not arrive are the reason that none come, so say that instead."""
        self._publisher.check()
        return self._stopping()

    def _count_skipped(self, reason: str | None) -> None:
        self._skipped = self._skipped + 1 if reason else 0
        if self._skipped >= self._config.learner.max_skipped_steps:
            raise RatchetError(
                f"{self._skipped} steps in a row changed nothing, the last because of {reason}; the run stops at policy "
                f"version {self._version}. Lower learner.optimizer.learning_rate and start it again: it goes on from its "
                "last checkpoint"
            )

    def _ratchet_when_due(self, report: StepReport) -> None:
        settings = self._config.learner
        if report.skipped is not None or settings.reference.type != "ratchet":
            return
        self._ratchet, verdict = observe(
            settings.reference,
            self._ratchet,
            step=self._version,
            pass_rate=report.pass_rate,
            optimizer_steps=report.optimizer_steps,
        )
        if verdict == "swap":
            self._team.ratchet()
            log.info("policy version %d becomes the reference", self._version)
        elif verdict == "pass_rate_fell":
            log.warning("the reference stays at version %d: the pass rate fell", self._ratchet.reference_version)
        elif verdict == "roll_back":
            self._team.roll_back()
            log.warning("the reference is version %d again: the pass rate fell", self._ratchet.reference_version)
        if verdict != "not_due":
            REFERENCE_VERDICTS.labels(verdict).inc()

    def _publish(self) -> None:
        taken, weights = self._team.snapshot(self._probe), self._config.weights
        device = bucket_device(weights.type, self._team.engine.device)
        self._publisher.publish(
            snapshot(self._version, taken.tensors, weights.bucket_mib, self._probe, taken.probe_logp, device)
        )

    def _evaluate_when_due(self, *, last: bool = False) -> bool:
        """False when `stopping` came first. Other weights are not published before the results are in."""
        held_out, settings = self._held_out, self._config.evaluation
        if held_out is None or settings is None or self._evaluated == self._version:
            return True
        if not last and self._version % settings.every_steps != 0:
            return True
        self._publisher.wait()
        prompts = evaluation_prompts(
            self._config, settings, held_out.problems, held_out.token_ids, self._version, held_out.attempt
        )
        deadline = Deadline.after(self._config.deadlines.evaluation_s, "evaluation results")
        evaluation = evaluate(
            prompts, held_out.issue_log(self._version), self._collector, deadline, self._stop_or_fault
        )
        if evaluation is None:
            return False
        self._evaluated = self._version
        self._records.evaluation(evaluation)
        return True

    def _checkpoint(self) -> None:
        start = now_s()
        staging = self._checkpoints.staging(self._version)
        self._team.save(staging)
        state = {
            "policy_version": self._version,
            "issued": self._issued,
            "evaluated": self._evaluated,
            "ledger": self._ledger.state(),
            "ratchet": self._ratchet.to_dict(),
            "ess_control": self._ess_control.to_dict(),
            "counts": self._records.counts(),
        }
        self._checkpoints.commit(staging, self._version, state)
        self._collector.acknowledge()
        self._checkpointed = self._version
        CHECKPOINT_SECONDS.observe(now_s() - start)
