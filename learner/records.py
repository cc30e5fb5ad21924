"""What the learner writes down: JSON lines, TensorBoard events, metrics, and the counts that a checkpoint carries.

The figures of a step are declared in learner/step/report.py; they reach steps.jsonl, TensorBoard and metrics in `Records.step`.
"""

import base64
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from learner.evaluation import Evaluation
from learner.intake.collector import Sampled
from learner.metrics import LAST_STEP_TIMESTAMP, POLICY_LAG_STEPS, REFERENCE_VERSION, TRAINED_TOKENS
from learner.publish.sync_report import SyncReport
from learner.ranks import TakenStep
from learner.step.report import StepReport, export
from learner.tracking.choice import tensorboard_of
from learner.tracking.tracker import Tracker
from services.clock import now_s
from services.log_lines import with_fields
from services.numbers import count
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.run.json_text import finite
from services.run.waiting import Waiting, write_waiting
from services.wire.codec import encode
from services.wire.score import DeadGroup, ScoredGroup

log = logging.getLogger("ratchet.learner")

NOTHING_COUNTED: dict[str, Any] = {
    "sampled_tokens": 0,
    "sampled_trajectories": 0,
    "trained_tokens": 0,
    "wall_seconds": 0.0,
}
"""`Records.counts` at the beginning of a run."""
MANY_CUT = 0.5
"""The line of a step says which fraction of its responses max_tokens cut, from this fraction on."""
WAITING_EVERY_S = 5.0
NESTED = ("dropped_groups", "dropped_sequences", "sources")
"""Mappings of a row whose numbers are scalars of TensorBoard, too."""


class Records:
    """The records of one start of the learner. Files are continued where the start before ended."""

    def __init__(
        self,
        folder: RunFolder,
        sampled: Sampled,
        counts: dict[str, Any],
        attempt: int,
        *,
        policy_version: int,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        """counts: those of the checkpoint that is continued, or NOTHING_COUNTED. attempt: which start this is.
        policy_version: the one that this start begins with; TensorBoard forgets the steps that an earlier start took after
        it. trackers: where figures go besides TensorBoard; they are closed with the records."""
        self._steps = JsonLines(folder.steps)
        self._syncs = JsonLines(folder.syncs)
        self._evaluations = JsonLines(folder.evaluations)
        self._trackers = [tensorboard_of(folder.tensorboard, policy_version), *trackers]
        self._dead = JsonLines(folder.dead)
        self._waiting = folder.waiting
        self._waiting_written_s = -math.inf
        self._attempt = attempt
        self._trained_tokens = int(counts["trained_tokens"])
        self._wall_before_s = float(counts["wall_seconds"])
        self._start_s: float | None = None
        self._warned_of_cuts = False
        self._sampled = sampled
        sampled.tokens = int(counts["sampled_tokens"])
        sampled.trajectories = int(counts["sampled_trajectories"])

    def begin(self) -> None:
        """Training starts now; what came before was start-up and is not part of wall_seconds."""
        self._start_s = now_s()
        LAST_STEP_TIMESTAMP.set_to_current_time()

    def counts(self) -> dict[str, Any]:
        """What the next start continues from; part of the checkpoint."""
        running_s = now_s() - self._start_s if self._start_s is not None else 0.0
        return {
            "sampled_tokens": self._sampled.tokens,
            "sampled_trajectories": self._sampled.trajectories,
            "trained_tokens": self._trained_tokens,
            "wall_seconds": self._wall_before_s + running_s,
        }

    def step(
        self,
        step: int,
        taken: TakenStep,
        *,
        groups: Sequence[ScoredGroup],
        counts: dict[str, Any],
        reference_version: int,
        lag_window: int,
        waited_s: float,
        seconds: float,
        sources: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Called after every step.

        step: the policy version that the step made. groups: those consumed for it. counts: groups of the run by outcome.
        waited_s: seconds spent waiting for groups. seconds: those of the step itself.
        sources: figures of each of several sources.
        """
        report = taken.report
        trained = report.tokens if report.skipped is None else 0
        self._trained_tokens += trained
        TRAINED_TOKENS.inc(trained)
        LAST_STEP_TIMESTAMP.set_to_current_time()
        for lag_steps, tokens in taken.lag_tokens.items():
            POLICY_LAG_STEPS.observe(lag_steps, tokens)
        row = {
            "step": step,
            "attempt": self._attempt,
            **asdict(report),
            **({"sources": sources} if sources else {}),
            "lag_tokens": taken.lag_tokens,
            "reference_version": reference_version,
            "lag_window": lag_window,
            "groups": counts,
            "consumed_groups": [g.group.prompt.sequence_number for g in groups],
            "waited_s": waited_s,
            "seconds": seconds,
            **self.counts(),
        }
        self._steps.write(**row)
        self._track(step, {f"step/{name}": value for name, value in scalars(row) if name not in ("step", "attempt")})
        export(report)
        REFERENCE_VERSION.set(reference_version)
        log.info("%s", _line(step, report, trained, seconds, waited_s), extra=with_fields(**_figures(row)))
        if report.cut_fraction == 1.0 and not self._warned_of_cuts:
            log.warning(
                "every response of step %d was cut by rollout.sampling.max_tokens before it ended, so no answer may be "
                "whole; raise max_tokens, or ask for shorter answers",
                step,
            )
            self._warned_of_cuts = True

    def note_waiting(self, waiting: Waiting) -> None:
        """Called again and again while the groups of a step are gathered; writes it down every few seconds."""
        if now_s() - self._waiting_written_s >= WAITING_EVERY_S:
            self._waiting_written_s = now_s()
            write_waiting(self._waiting, waiting)

    def sync(self, report: SyncReport) -> None:
        """Called after every confirmed broadcast, from the publisher's thread."""
        self._syncs.write(attempt=self._attempt, **asdict(report))

    def evaluation(self, evaluation: Evaluation) -> None:
        """Called after every evaluation."""
        self._evaluations.write(attempt=self._attempt, **asdict(evaluation))
        found = {"evaluation/avg_at_k": evaluation.avg_at_k, "evaluation/pass_at_k": evaluation.pass_at_k}
        for name, figures in evaluation.sources.items():
            found |= {
                f"evaluation/{name}/avg_at_k": figures.avg_at_k,
                f"evaluation/{name}/pass_at_k": figures.pass_at_k,
            }
        self._track(evaluation.policy_version, found)

    def _track(self, step: int, figures: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.log(step, figures)

    def death(self, dead: DeadGroup) -> None:
        """Called for each dead group that the learner finds; after a crash for some of them once more."""
        sent = dead.prompt
        self._dead.write(
            attempt=self._attempt,
            group_id=dead.group_id,
            stage=dead.stage,
            cause=dead.cause,
            row=None if sent is None else sent.row,
            purpose=None if sent is None else sent.purpose,
            prompt=None if sent is None else base64.b64encode(encode(sent)).decode(),  # to send it round again
        )

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()
        for lines in (self._steps, self._syncs, self._evaluations, self._dead):
            lines.close()


def scalars(row: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row by name; those of a mapping within it are named `mapping/key`."""
    for name, value in row.items():
        if isinstance(value, int | float):
            yield f"{above}{name}", value
        elif isinstance(value, Mapping) and (above or name in NESTED):
            yield from scalars(value, f"{above}{name}/")


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the line of a step has in JSON: the row without its mappings and lists."""
    return {name: value for name, value in finite(row).items() if not isinstance(value, Mapping | list)}


def _line(step: int, report: StepReport, trained_tokens: int, seconds: float, waited_s: float) -> str:
    """One step in one line of the log; steps.jsonl has every figure."""
    facts = [
        f"step {step}",
        f"pass rate {report.pass_rate:.2f}",
        f"reward {report.mean_reward:.3f}",
        f"lag {report.mean_lag_steps:.2f}",
        f"ESS {report.ess_ratio:.2f}",
        f"{count(trained_tokens)} tokens in {seconds:.2f} s after {waited_s:.2f} s of waiting",
        f"weights version {step}",
    ]
    if report.cut_fraction >= MANY_CUT:
        facts.append(f"{report.cut_fraction:.2f} of the responses cut by max_tokens")
    if report.skipped is not None:
        facts.append(f"not trained on: {report.skipped}")
    return "  ".join(facts)
