"""The training loop of learner rank 0: issue, evaluate, gather, step, publish, checkpoint; one policy version per turn.

The order matters twice. Prompts are issued after the step that frees their credit. Groups are acknowledged after the checkpoint
that contains them, so whatever a crash takes back comes again. While a step is taken, published and saved, a thread of the intake
gathers for the next one and issues what dropped groups free.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learner.checkpoint import Checkpoints, export_beside
from learner.control.mismatch import MismatchAlarm
from learner.control.ratchet import Verdict
from learner.control.schedule import scheduled_learning_rate
from learner.evaluation import Evaluator
from learner.intake.gathering import Gathered
from learner.intake.intake import Intake
from learner.intake.ledger import Ledger
from learner.kept_groups import KeptGroups
from learner.metrics import (
    CHECKPOINT_TIMESTAMP,
    LAST_STEP_TIMESTAMP,
    MAX_LAG_STEPS,
    PLANNED_STEPS,
    POLICY_VERSION,
    REFERENCE_VERDICTS,
    STEP_SECONDS,
)
from learner.publish.publisher import WeightPublisher
from learner.publish.snapshot import Snapshots
from learner.ranks import Team
from learner.recorded_steps import RecordedStep, RecordedSteps
from learner.records import NOTHING_COUNTED, Records
from learner.run_state import RunState
from learner.saving import Saving
from learner.source_figures import source_figures
from services.clock import now_s
from services.config import RunConfig
from services.entry import works
from services.errors import InputError
from services.metrics import BusyTime
from services.run import made_of
from services.run.checkpoint_files import Damaged, newest_whole, visible_damage
from services.run.folder import RunFolder
from services.run.made_of import MadeOf

log = logging.getLogger("ratchet.learner")


@dataclass(frozen=True)
class Beginning:
    """What a start of the learner begins with: a new run, or the latest checkpoint without its weights."""

    checkpoint: Path | None
    """Where the weights are; None for a new run."""
    state: RunState
    ledger: Ledger
    counts: dict[str, Any]
    """See `Records.counts`."""
    prompts: dict[str, Any] | None = None
    """See `PromptIssuer.begin`; None for a new run, and where the checkpoint is from before prompts were chosen by state."""

    @classmethod
    def of(
        cls,
        config: RunConfig,
        made: MadeOf | None = None,
        *,
        weights_only: bool = False,
        damage_of: Callable[[Path], Damaged | None] = visible_damage,
    ) -> "Beginning":
        """Read the newest checkpoint of the run that is whole, if there is one, and warn of newer ones. Raises InputError when
        all are damaged, when it lacks something, or when it is of a run that was made of something else.

        made: what this run is made of; None: it is not compared. weights_only: to evaluate the weights, not to continue the
        run. damage_of: how a checkpoint is looked at.
        """
        checkpoint = newest_whole(RunFolder(config.folder).checkpoints, log.warning, damage_of)
        state = RunState.begin(config.learner)
        state.made_of = made or {}
        if checkpoint is None:
            return cls(None, state, Ledger(), NOTHING_COUNTED)
        saved = Checkpoints.state(checkpoint)
        if made is not None:
            only = ("model.path",) if weights_only else ()
            accepted = config.learner.checkpoint.accept_changed
            needed = made_of.needed_again(config)
            made_of.check(
                made_of.saved_in(checkpoint), made, accepted, origin=str(checkpoint), only=only, needed=needed
            )
        if weights_only:
            state.policy_version = saved["policy_version"]
        else:
            state = RunState.from_dict(config.learner, saved)
            state.made_of = made or {}
        counts = {key: saved["counts"][key] for key in NOTHING_COUNTED}
        return cls(checkpoint, state, Ledger.from_dict(saved["ledger"]), counts, saved.get("prompts"))


class TrainingLoop:
    """The order in which things happen during a run."""

    def __init__(
        self,
        config: RunConfig,
        *,
        team: Team,
        state: RunState,
        intake: Intake,
        snapshots: Snapshots,
        publisher: WeightPublisher,
        evaluator: Evaluator | None,
        records: Records,
        stopping: Callable[[], bool],
        kept: KeptGroups | None = None,
    ) -> None:
        """state: shared with the intake; the loop alone writes all of it but `issued`. kept: where groups are kept for the
        page's inspector."""
        self._config = config
        self._team = team
        self._state = state
        self._intake = intake
        self._snapshots = snapshots
        self._publisher = publisher
        self._evaluator = evaluator
        self._records = records
        self._kept = kept
        self._stopping = stopping
        self.saving = Saving(config, team=team, state=state, intake=intake, records=records)
        """Writes the checkpoints."""
        self._recorded = RecordedSteps(RunFolder(config.folder).replay, config.learner.checkpoint.replay_steps)
        self._mismatch = MismatchAlarm(config.weights, config.model.dtype)
        self._busy = BusyTime("learner")
        PLANNED_STEPS.set(config.learner.steps)
        MAX_LAG_STEPS.set(config.learner.max_lag)
        POLICY_VERSION.set(state.policy_version)
        CHECKPOINT_TIMESTAMP.set_to_current_time()
        LAST_STEP_TIMESTAMP.set_to_current_time()

    def load(self, checkpoint: Path, *, weights_only: bool = False) -> None:
        """Load the weights of a checkpoint whose state and ledger are in place already, and issue again what is not settled.

        weights_only: to evaluate them, not to continue the run; nothing is issued.
        """
        self._team.load(checkpoint)
        if weights_only:
            return
        self.saving.resume(checkpoint)
        self._recorded.forget_after(self._state.policy_version)
        self._intake.restore()
        log.info("resuming from policy version %d (%s)", self._state.policy_version, checkpoint.name)

    def run(self) -> bool:
        """Train to the last step or until `stopping`, and leave a checkpoint; return whether the last step was reached."""
        try:
            try:
                self._turns()
            finally:
                self._intake.end_ahead()
            done = self._state.is_complete and self._evaluate_when_due(last=True)
        except Exception as error:
            self.saving.finish_after(error)
            raise
        if self._state.policy_version != self.saving.version or done:
            self._save()
        self.saving.finish()
        if done:
            export_beside(RunFolder(self._config.folder).export, self._team.export)
        return done

    def _turns(self) -> None:
        """Turn after turn, until the last step was taken or the run was asked to stop."""
        self._publish()
        while not self._state.is_complete and not self._stopping():
            self._intake.issue()
            self.saving.look()
            if not self._evaluate_when_due():
                return
            if not self._take_step():
                return
            self._publish()
            if self._state.policy_version % self._config.learner.checkpoint.every_steps == 0:
                self._save()

    def evaluate_only(self) -> bool:
        """Evaluate the weights as they are, once; return whether that came to an end."""
        self._publish()
        return self._evaluate_when_due(last=True)

    def _save(self) -> None:
        with self._busy.working():
            self.saving.begin()

    def _publish(self) -> None:
        with self._busy.working():
            snapshot = self._snapshots.take(self._state.policy_version)
            self._recorded.write(snapshot.policy_version, snapshot.probes)
        self._publisher.publish(snapshot)
        self._state.pg_generation = self._publisher.generation

    def _take_step(self) -> bool:
        """Take one learner step. Returns False if the run was asked to stop before it."""
        waited_from = now_s()
        gathered = self._intake.gather(self.saving.look)
        if gathered is None:
            return False
        self._intake.begin_ahead()
        with self._busy.working():
            self._train(gathered, waited_from)
        return True

    def _train(self, gathered: Gathered, waited_from: float) -> None:
        """The step itself, and its records. waited_from: when the wait for its groups began, in monotonic seconds."""
        start = now_s()
        settings, state = self._config.learner, self._state
        step = RecordedStep(
            policy_version=state.policy_version,
            groups=gathered.groups,
            learning_rate=scheduled_learning_rate(settings.optimizer, state.policy_version, settings.steps),
            full_ess_ratio=state.ess_control.full_ratio,
        )
        self._intake.begin_step(gathered)
        try:
            taken = self._team.step(
                gathered.kept,
                gathered.tally,
                policy_version=step.policy_version,
                learning_rate=step.learning_rate,
                full_ess_ratio=step.full_ess_ratio,
            )
        except Exception:
            self._intake.fail_step()
            raise
        self._recorded.take(step, taken.report)
        with self._intake.lock:
            self._intake.settle(gathered, trained=taken.report.skipped is None)
            verdict = state.count_step(taken.report)
        POLICY_VERSION.set(state.policy_version)
        works()
        move_reference(self._team, verdict, state.ratchet.reference_version)
        seconds = now_s() - start
        STEP_SECONDS.observe(seconds)
        self._records.step(
            state.policy_version,
            taken,
            groups=gathered.groups,
            sources=source_figures(gathered.by_source, self._intake.shares),
            counts=self._intake.counts(),
            reference_version=state.ratchet.reference_version,
            lag_window=state.ess_control.steps_ahead,
            waited_s=start - waited_from,
            seconds=seconds,
        )
        if self._kept is not None:
            self._kept.offer(state.policy_version, gathered, taken.seen)
        self._heed_mismatch(taken.report.engine_mismatch_kl)

    def _heed_mismatch(self, mismatch_kl: float | None) -> None:
        """Warn when engine and learner differ by more than rounding. Raises InputError once that has lasted."""
        verdict = self._mismatch.observe(mismatch_kl, self._publisher.kernel_gap_nats)
        if verdict == "high":
            log.warning("%s", self._mismatch.words(mismatch_kl))
        elif verdict == "lasting":
            raise InputError(self._mismatch.words(mismatch_kl))

    def _evaluate_when_due(self, *, last: bool = False) -> bool:
        """Returns False if the run was asked to stop. No other weights are published before the results are in."""
        state = self._state
        if self._evaluator is None or not self._evaluator.is_due(
            state.policy_version, state.evaluated_version, last=last
        ):
            return True
        with self._intake.paused():
            evaluation = self._evaluator.evaluate(state.policy_version)
        if evaluation is None:
            return False
        state.evaluated_version = state.policy_version
        self._records.evaluation(evaluation)
        return True


def move_reference(team: Team, verdict: Verdict, reference_version: int) -> None:
    """Do to the reference policy what the ratchet decided. reference_version: its policy version after that."""
    if verdict == "swap":
        team.ratchet()
        log.info("policy version %d becomes the reference", reference_version)
    elif verdict == "roll_back":
        team.roll_back()
        log.warning("the reference is version %d again: the pass rate fell", reference_version)
    elif verdict == "pass_rate_fell":
        log.warning("the reference stays at version %d: the pass rate fell", reference_version)
    if verdict != "not_due":
        REFERENCE_VERDICTS.labels(verdict).inc()
