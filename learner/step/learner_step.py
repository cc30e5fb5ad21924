"""One learner step: a batch of scored groups in, one or several optimizer steps, one report out."""

from collections.abc import Callable

from learner.batch.step_batch import StepBatch, split
from learner.engine.protocol import TrainEngine
from learner.step.measure import SeenByRanks
from learner.step.optimizer_step import OptimizerStep
from learner.step.report import StepReport, merged, report
from services.config.learner import LearnerConfig


def learner_step(
    engine: TrainEngine,
    batch: StepBatch,
    settings: LearnerConfig,
    *,
    learning_rate: float,
    full_ess_ratio: float | None = None,
    observe: Callable[[SeenByRanks], None] = lambda _: None,
) -> StepReport:
    """Called by every rank with the same batch.

    learning_rate: the schedule's, before the ESS factor. full_ess_ratio: the ESS ratio at which a step is taken whole, as
    measured in this run; None: as in the settings. observe: shown what the backward of each optimizer step saw of its tokens,
    in order.

    With mini_batches > 1 every optimizer step has its share of the groups. Whatever is compared with the weights that the
    batch began with (reference, teachers, proximal policy) is scored before the first of them.
    """
    if len(batch) == 0:
        return report(batch, "empty")
    steps = [OptimizerStep(engine, part, settings) for part in split(batch, settings.mini_batches)]
    scores = [step.score(weights_will_move=number > 0) for number, step in enumerate(steps)]
    return merged(
        [step.take(known, learning_rate, full_ess_ratio, observe) for step, known in zip(steps, scores, strict=True)]
    )
