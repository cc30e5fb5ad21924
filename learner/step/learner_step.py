"""One learner step: a batch of scored groups in, one or several optimizer steps, one report out."""

from learner.batch.step_batch import StepBatch, split
from learner.engine.protocol import TrainEngine
from learner.step.optimizer_step import OptimizerStep
from learner.step.report import StepReport, merged, report
from services.config.learner import LearnerConfig

__all__ = ["StepReport", "learner_step"]


def learner_step(
    engine: TrainEngine,
    batch: StepBatch,
    settings: LearnerConfig,
    *,
    learning_rate: float,
    full_ess_ratio: float | None = None,
) -> StepReport:
    """Called by every rank with the same batch. learning_rate: the schedule's, before the ESS factor.
    full_ess_ratio: at which a step is taken whole, as measured; None: that of the settings.

    With mini_batches > 1 every optimizer step has its share of the groups. What is to be measured against the weights
    that the batch began with (reference, teachers, the proximal policy) is scored before the first of them.
    """
    if len(batch) == 0:
        return report(batch, "empty")
    steps = [OptimizerStep(engine, part, settings) for part in split(batch, settings.mini_batches)]
    for number, step in enumerate(steps):
        step.score_references(weights_will_move=number > 0)
        if number > 0 and settings.objective.needs_proximal:
            step.score_proximal()
    return merged([step.take(learning_rate, full_ess_ratio) for step in steps])
