"""What policies other than the one that sampled say about the tokens of a mini-batch, scored by the learner itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.engine.protocol import Policy, TokenStatistics, TrainEngine
from learner.step.inputs import StepInputs
from services.config.learner import LearnerConfig


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probs (float32 [T], nats) that must be taken before the batch's first optimizer step. The same on every rank."""

    reference_logp: Tensor | None
    """None where the reference is the current policy, or is not needed."""
    reference_hidden: Tensor | None
    """float32 [N, H], mean hidden state of each sequence under the reference; None as `reference_logp`, or not needed."""
    proximal_logp: Tensor | None
    """None where the proximal policy is the current one, or is not needed."""
    teacher_logp: Tensor
    """[K, T]."""
    weights_moved: bool
    """Whether the batch has an optimizer step before this one."""

    def missing(self, mask: Tensor) -> int:
        """Number of log-probs of the reference and the teachers that are not finite at tokens that count."""
        scored = (
            self.teacher_logp if self.reference_logp is None else torch.stack([*self.teacher_logp, self.reference_logp])
        )
        return int((~torch.isfinite(scored[:, mask])).sum())


def score_other_policies(
    engine: TrainEngine,
    inputs: StepInputs,
    micro_batches: Sequence[MicroBatch],
    settings: LearnerConfig,
    *,
    weights_will_move: bool,
) -> Scores:
    """Score with the reference, the teachers and the proximal policy, each where the objective needs it.

    weights_will_move: whether the batch has an optimizer step before this one. A reference or a proximal policy that is
    the current policy now will not be it then.
    """
    reference: Tensor | None = None
    hidden: Tensor | None = None
    proximal: Tensor | None = None
    if settings.objective.references and (weights_will_move or not engine.reference_is_current):
        seen = score(engine, inputs, micro_batches, "reference")
        reference, hidden = seen.logp, seen.hidden
    teachers = [score(engine, inputs, micro_batches, number).logp for number in range(len(settings.teachers))]
    if weights_will_move and settings.objective.needs_proximal:
        is_known = reference is not None and engine.reference_is_current
        proximal = reference if is_known else score(engine, inputs, micro_batches, "current").logp
    none = torch.zeros(0, len(inputs.batch.mask), device=inputs.device)
    return Scores(
        reference_logp=reference,
        reference_hidden=hidden,
        proximal_logp=proximal,
        teacher_logp=torch.stack(teachers) if teachers else none,
        weights_moved=weights_will_move,
    )


def score(
    engine: TrainEngine, inputs: StepInputs, micro_batches: Sequence[MicroBatch], policy: Policy
) -> TokenStatistics:
    """What `policy` says about every token [T] and sequence [N] of the mini-batch, gathered from all ranks."""
    flat = torch.zeros(3, len(inputs.batch.mask), device=inputs.device)
    means: Tensor | None = None
    for micro_batch, seen in zip(micro_batches, engine.token_statistics(micro_batches, policy), strict=True):
        places = inputs.places(micro_batch)
        if seen.hidden is not None:
            if means is None:
                means = torch.zeros(len(inputs.lengths), seen.hidden.shape[1], device=inputs.device)
            means[places.sequence_index] = seen.hidden
        if len(micro_batch.sequence_index):
            flat[:, places.token_index] = torch.stack([seen.logp, seen.entropy, seen.residual])
    hidden = None if means is None else engine.sum_over_ranks(means)
    logp, entropy, residual = engine.sum_over_ranks(flat).unbind()
    return TokenStatistics(logp, entropy, residual, hidden)
