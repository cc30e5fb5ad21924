"""The objective of one optimizer step: pure functions of what the current policy says about some of its sequences."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.engine.protocol import TokenStatistics
from learner.objective import OBJECTIVES, Objective
from learner.objective.aggregate import aggregate, token_scale
from learner.objective.baseline import log_gradient_norm
from learner.objective.importance import importance_weight, log_importance
from learner.objective.ratios import over_tokens
from learner.objective.tokens import Tokens
from learner.objective.turns import with_outcome
from learner.step.inputs import Places, StepInputs
from learner.step.scores import Scores
from services.config.learner import LearnerConfig


@dataclass(frozen=True, slots=True)
class Advantages:
    """What a baseline makes of the rewards of n sequences, and what else their loss has to know about the step."""

    advantage: Tensor
    """float32 [n]."""
    baseline: Tensor | None = None
    """float64 [G], 0 for groups that are not among these sequences; None where the baseline needs no gradient norms."""
    statistics: Tensor | None = None
    """float64; what the objective's own `statistics` says about the whole step, where it has them."""

    def at(self, places: Places) -> "Advantages":
        """Those of some sequences. To be called on the advantages of the whole mini-batch."""
        return dataclasses.replace(self, advantage=self.advantage[places.sequence_index])


@dataclass(frozen=True, slots=True)
class LossRecord:
    """What one micro-batch's loss saw and returned; no gradient."""

    places: Places
    loss: Tensor
    """[], the micro-batch's share of the step's loss."""
    logp: Tensor
    """float32 [M]."""
    entropy: Tensor
    """float32 [M]."""
    one_way_weight: Tensor
    """float32 [M]; 0 at tokens that do not count."""
    advantages: Advantages


@dataclass(frozen=True, slots=True)
class StepObjective:
    """The configured objective over one mini-batch.

    Masked tokens are taken out before any arithmetic of the objective: their log-probs may be anything.
    """

    inputs: StepInputs
    scores: Scores
    settings: LearnerConfig

    @property
    def functions(self) -> Objective:
        return OBJECTIVES[self.settings.objective.type]

    def tokens(
        self, places: Places, logp: Tensor, advantages: Advantages, seen: TokenStatistics | None = None
    ) -> Tokens:
        """What the objective sees of these sequences. logp: [M], under the current policy.

        seen: [M], the same with what else may carry a gradient; None where only log-probs are known.
        """
        inputs, scores = self.inputs, self.scores
        at, logp = places.that_count(places.token_index), places.that_count(logp)
        current, lengths = logp.detach(), inputs.counted[places.sequence_index]
        none = torch.zeros(len(lengths), 0, device=inputs.device)
        hidden = none if seen is None or seen.hidden is None else seen.hidden
        predicted = none if seen is None or seen.predicted is None else seen.predicted
        reads_entropy = seen is not None and self.settings.objective.needs_entropy
        no_statistics = torch.zeros(0, dtype=torch.float64, device=inputs.device)
        return Tokens(
            **inputs.shared_columns(at),
            logp=logp,
            current_logp=current,
            proximal_logp=current if scores.proximal_logp is None else scores.proximal_logp[at],
            reference_logp=current if scores.reference_logp is None else scores.reference_logp[at],
            teacher_logp=scores.teacher_logp[:, at],
            entropy=places.that_count(seen.entropy)
            if seen is not None and reads_entropy
            else torch.zeros_like(current),
            hidden=hidden,
            predicted_hidden=predicted,
            reference_hidden=self._reference_hidden(places, hidden.detach()),
            advantage=self._token_advantage(at, over_tokens(advantages.advantage, lengths, len(logp))),
            group=inputs.batch.group[places.sequence_index],
            lengths=lengths,
            statistics=no_statistics if advantages.statistics is None else advantages.statistics,
        )

    def _token_advantage(self, at: Tensor, outcome: Tensor) -> Tensor:
        """float32 [T]. at: the tokens' places in the mini-batch; outcome: the advantages of their whole sequences."""
        turns, of_turn = self.settings.advantage.turns, self.inputs.turn_advantage
        if turns is None or of_turn is None:
            return outcome
        return with_outcome(of_turn[at], outcome, turns.outcome_weight)

    def _reference_hidden(self, places: Places, current: Tensor) -> Tensor:
        """float32 [n, H]. current: that of the current policy, which is the reference where none was scored."""
        known, noise = self.scores.reference_hidden, self.settings.objective.reference_noise
        hidden = current if known is None or current.shape[1] == 0 else known[places.sequence_index]
        if noise == 0.0:
            return hidden
        return hidden + noise * self.inputs.normal(hidden.shape[1])[places.sequence_index]

    def with_statistics(self, advantages: Advantages, places: Places, logp: Tensor) -> Advantages:
        """The same, with the objective's statistics where it has them: then `places` must be the whole step."""
        if self.functions.statistics is None:
            return advantages
        tokens = self.tokens(places, logp, advantages)
        return dataclasses.replace(advantages, statistics=self.functions.statistics(tokens, self.settings.objective))

    def log_importance(self, tokens: Tokens) -> Tensor:
        """log of the importance weights, whose numerator the objective names. float64 [T]."""
        numerator = self.settings.objective.numerator
        if numerator == "none":
            return torch.zeros_like(tokens.current_logp, dtype=torch.float64)
        above = tokens.current_logp if numerator == "current" else tokens.proximal_logp
        return log_importance(above.float() - tokens.behavior_logp.float(), tokens.lengths, self.settings.importance)

    def importance(self, tokens: Tokens) -> Tensor:
        """Importance weights after truncation, masking or rejection. float32 [T]."""
        return importance_weight(self.log_importance(tokens), tokens.lengths, self.settings.importance)

    def loss(self, places: Places, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """(share of the step's loss [], one-way weight [T]).

        The share is that of -(1/B) sum_i (1/L_i) sum_t importance_t weight_t surrogate_t, or as the settings aggregate.
        """
        settings, inputs = self.settings, self.inputs
        mask = inputs.batch.mask[places.token_index]
        weight = self.functions.token_weight(tokens, settings.objective)
        token_loss = -self.importance(tokens) * weight * self.functions.surrogate(tokens, settings.objective)
        scale = token_scale(
            settings.aggregation,
            mask,
            inputs.lengths[places.sequence_index],
            step_sequences=inputs.step_sequences,
            step_tokens=inputs.step_tokens,
            constant_tokens=settings.constant_tokens,
        )
        return aggregate(token_loss, places.that_count(scale)), weight

    def log_proxy_norms(self, places: Places, statistics: TokenStatistics, signs: Advantages) -> Tensor:
        """log of the squared gradient norm of each sequence by the logit proxy. float64 [n].

        statistics: [M], under the current policy. signs: the sign of each advantage, which is all that the norms depend
        on. As with the norms themselves, a clipped token adds nothing, nor does a sequence without an advantage.
        """
        settings, tokens = self.settings, self.tokens(places, statistics.logp, signs)
        importance = self.importance(tokens)
        return log_gradient_norm(
            torch.zeros(len(places.sequence_index), dtype=torch.float64, device=self.inputs.device),
            importance.double()
            * self.functions.token_weight(tokens, settings.objective)
            * self.functions.slope(tokens, settings.objective),
            places.that_count(statistics.residual),
            torch.ones_like(importance, dtype=torch.bool),
            tokens.lengths,
            per_token=settings.aggregation != "sequence_mean",
        )


AdvantagesOf = Callable[[Places, TokenStatistics], Advantages]
"""The advantages of some sequences, given what the current policy says about their tokens (no gradient)."""


@dataclass(frozen=True, slots=True)
class StepLoss:
    """The loss that the engine differentiates: it returns the value and a record of what it saw."""

    objective: StepObjective
    advantages: AdvantagesOf

    def __call__(self, micro_batch: MicroBatch, statistics: TokenStatistics) -> tuple[Tensor, LossRecord]:
        places = self.objective.inputs.places(micro_batch)
        logp, entropy = statistics.logp.detach(), statistics.entropy.detach()
        advantages = self.advantages(places, TokenStatistics(logp, entropy, statistics.residual))
        tokens = self.objective.tokens(places, statistics.logp, advantages, statistics)
        value, weight = self.objective.loss(places, tokens)
        one_way_weight = torch.zeros_like(logp)
        one_way_weight[places.counted] = weight
        record = LossRecord(
            places=places,
            loss=value.detach(),
            logp=logp,
            entropy=entropy,
            one_way_weight=one_way_weight,
            advantages=advantages,
        )
        return value, record
