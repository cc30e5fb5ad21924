"""One optimizer step, in the order of the paper: score, subtract the baseline, backward, ESS, step.

Read `OptimizerStep.take` downwards; baselines.py, loss.py and measure.py are what it calls.
"""

import math
from collections.abc import Callable
from functools import partial

import torch

from learner.batch.step_batch import StepBatch
from learner.engine.protocol import TrainEngine
from learner.objective.ess import learning_rate_factor
from learner.step.baselines import Differentiated, baseline_of, baseline_shift
from learner.step.inputs import StepInputs, without_pivots
from learner.step.loss import StepLoss, StepObjective
from learner.step.measure import EssRatios, SeenByRanks, assert_ranks_agree, ess_ratios, measure, outcome
from learner.step.report import SkipReason, StepReport, report
from learner.step.scores import Scores, score, score_other_policies
from services.config.learner import LearnerConfig


class OptimizerStep:
    """A mini-batch that is packed for this rank and ready to be scored and stepped on. Nothing in it changes."""

    def __init__(self, engine: TrainEngine, batch: StepBatch, settings: LearnerConfig) -> None:
        self.engine = engine
        self.settings = settings
        self.batch = without_pivots(batch) if settings.advantage.baseline == "median" else batch
        self.inputs = StepInputs.of(self.batch, engine.device, settings.advantage)
        self.baseline = baseline_of(self.inputs, settings)
        self.packing = self.baseline.pack(
            self.batch, rank=engine.rank, world_size=engine.world_size, share_prompts=engine.shares_prompts
        )

    def score(self, *, weights_will_move: bool) -> Scores:
        """What other policies say, before the batch's first optimizer step.

        weights_will_move: whether the batch has an optimizer step before this one.
        """
        return score_other_policies(
            self.engine,
            self.inputs,
            self.packing.micro_batches,
            self.settings,
            weights_will_move=weights_will_move,
        )

    def take(
        self,
        scores: Scores,
        learning_rate: float,
        full_ess_ratio: float | None = None,
        observe: Callable[[SeenByRanks], None] = lambda _: None,
    ) -> StepReport:
        """Step at learning_rate times the ESS factor, or not at all where a value is not finite."""
        engine, settings, inputs = self.engine, self.settings, self.inputs
        missing = scores.missing(inputs.batch.mask)
        if missing:
            return report(self.batch, "non_finite_reference", missing_reference_tokens=missing)

        # Score the current policy and subtract the baseline, unless the backward's own forward does for both.
        objective = StepObjective(inputs, scores, settings)
        advantages = partial(self.baseline.advantages, objective)
        scored = None
        if self.packing.scores_first:
            current = score(engine, inputs, self.packing.micro_batches, "current")
            scored = advantages(inputs.everything, current)

        # Backward.
        loss = StepLoss(objective, advantages if scored is None else lambda places, _: scored.at(places))
        done = self.baseline.backward(engine, self.packing.micro_batches, loss, scored)

        # ESS.
        seen = _from_all_ranks(engine, inputs, done)
        observe(seen)
        tokens = objective.tokens(inputs.everything, seen.logp, done.advantages)
        ess = ess_ratios(objective, tokens, seen)
        measured = measure(objective, tokens, seen)
        measured["mean_baseline_shift"] = baseline_shift(done.advantages, inputs)
        if skipped := _not_finite(ess, seen):
            engine.discard_gradients()
            return report(self.batch, skipped, **measured)

        # Step.
        factor = learning_rate_factor(ess.untruncated, settings.ess, full_ess_ratio)
        assert_ranks_agree(engine, learning_rate * factor)
        taken = engine.step(learning_rate * factor)
        if taken.applied and settings.reference.type == "ema":
            engine.blend_reference(settings.reference.decay, debiased=settings.reference.debiased)
        measured |= {"lr_factor": factor, "learning_rate": learning_rate * factor if taken.applied else math.nan}
        skipped = None if taken.applied else "non_finite_gradient"
        return report(self.batch, skipped, **measured, **outcome(ess, seen, taken))


def _not_finite(ess: EssRatios, seen: SeenByRanks) -> SkipReason | None:
    """Why no step may be taken; None if everything is finite."""
    if not math.isfinite(ess.untruncated):
        return "non_finite_ess"
    return None if math.isfinite(seen.loss) else "non_finite_loss"


def _from_all_ranks(engine: TrainEngine, inputs: StepInputs, done: Differentiated) -> SeenByRanks:
    """What each rank saw of its micro-batches, on the flat axis of the whole mini-batch."""
    flat = torch.zeros(3, len(inputs.batch.mask), device=inputs.device)
    for record in done.records:
        flat[:, record.places.token_index] = torch.stack([record.logp, record.entropy, record.one_way_weight])
    logp, entropy, one_way_weight = engine.sum_over_ranks(flat).unbind()
    loss = float(engine.sum_over_ranks(torch.tensor(done.loss, dtype=torch.float64)))
    return SeenByRanks(loss, logp, entropy, one_way_weight)
