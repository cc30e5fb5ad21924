"""One optimizer step, in the order of the paper: score, weigh, subtract the baseline, backward, ESS, step."""

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from learner.batch.packing import MicroBatch, one_each, pack, pack_whole_groups
from learner.batch.step_batch import StepBatch
from learner.engine.protocol import Policy, TokenStatistics, TrainEngine
from learner.objective import OBJECTIVES
from learner.objective.advantage import advantages, group_advantages, pivots
from learner.objective.aggregate import aggregate, token_scale
from learner.objective.baseline import group_mean, log_gradient_norm, minimum_variance_baseline, reward_sign
from learner.objective.diagnostics import kl_estimate, one_way_bounds, sign_fractions
from learner.objective.ess import ess_ratio, learning_rate_factor
from learner.objective.importance import importance_weight, log_importance
from learner.objective.ratios import segment_mean, segment_sum, sequence_log_weight
from learner.objective.tokens import Tokens
from learner.step.exact import ExactBaseline
from learner.step.report import StepReport, report
from services.config.learner import LearnerConfig


class OptimizerStep:
    """A mini-batch on the engine's device, and what this rank's backward leaves on its flat axis.

    Masked tokens are taken out before any arithmetic of the objective: their log-probs may be anything.
    """

    def __init__(self, engine: TrainEngine, batch: StepBatch, settings: LearnerConfig) -> None:
        self.engine, self.settings, self.device = engine, settings, engine.device
        self.objective = OBJECTIVES[settings.objective.type]
        self.is_exact = settings.advantage.baseline == "minimum_variance_exact"
        self.is_proxy = settings.advantage.baseline == "minimum_variance"
        self.micro_batches, self.scores_first = self._packed(batch)
        if settings.advantage.baseline == "median":
            batch = _without_pivots(batch)
        self.batch = batch
        self.mask = batch.mask.to(self.device)
        self.lengths = batch.cu_seqlens.diff().to(self.device)
        self.counted = segment_sum(self.mask.long(), self.lengths)
        self.behavior_logp = batch.behavior_logp.to(self.device)
        self.lag_steps = batch.lag_steps.to(self.device)
        self.reward = batch.reward.to(self.device)
        self.group = batch.group.to(self.device)
        self.step_sequences, self.step_tokens = int((self.counted > 0).sum()), int(batch.mask.sum())
        self.advantage: Tensor | None = None  # float32 [N]; its sign alone while the baseline waits for gradient norms
        self.baseline = torch.zeros_like(group_mean(self.reward, self.group))  # of this rank's groups, where it waits
        self.baseline_shift = 0.0
        self.statistics: Tensor | None = None  # float64; None: the objective's own wait for the current policy
        self.reference_logp: Tensor | None = None  # None: the reference is the current policy, or is not needed
        self.proximal_logp: Tensor | None = None  # None: the proximal policy is the current one, or is not needed
        self.weights_moved = False  # since the batch began
        self.reference_hidden: Tensor | None = None  # [N, H]; None as reference_logp
        self.teacher_logp = torch.zeros(0, len(self.behavior_logp), device=self.device)
        self.logp = torch.zeros_like(self.behavior_logp)
        self.entropy = torch.zeros_like(self.behavior_logp)
        self.one_way_weight = torch.zeros_like(self.behavior_logp)

    # Before the batch's first optimizer step

    def score_references(self, *, weights_will_move: bool) -> None:
        """The reference and the teachers, as far as the objective needs them.

        weights_will_move: before this step; a reference that is the current policy by now will not be it then.
        """
        self.weights_moved = weights_will_move
        if self.settings.objective.references and (weights_will_move or not self.engine.reference_is_current):
            self.reference_logp = self._score("reference").logp
            if self.settings.objective.needs_hidden:
                self.reference_hidden = self._represent("reference")
        teachers = range(len(self.settings.teachers))
        if teachers:
            self.teacher_logp = torch.stack([self._score(teacher).logp for teacher in teachers])

    def score_proximal(self) -> None:
        known = self.reference_logp if self.engine.reference_is_current else None
        self.proximal_logp = self._score("current").logp if known is None else known

    # The step

    def take(self, learning_rate: float, full_ess_ratio: float | None = None) -> StepReport:
        """Steps at learning_rate times the ESS factor, or not at all when a number is not finite."""
        engine = self.engine
        missing = self._missing_references()
        if missing:
            return report(self.batch, "non_finite_reference", missing_reference_tokens=missing)
        if self.is_exact or self.is_proxy:
            self.advantage = reward_sign(self.reward, self.group).float()
        else:
            self.advantage = group_advantages(self.reward, self.group, self.counted, self.settings.advantage)
        if self.scores_first:
            current = self._score("current")
            self._prepare(*self.everything, current.logp, current.sum_p2)
        loss = self._exact_backward() if self.is_exact else self._backward()
        # What the backward saw, from every rank: the same numbers everywhere, so the same decision everywhere.
        logp, entropy, weight = engine.sum_over_ranks(
            torch.stack([self.logp, self.entropy, self.one_way_weight])
        ).unbind()
        loss = float(engine.sum_over_ranks(torch.tensor(loss, dtype=torch.float64)))
        tokens = self._whole_step(logp)
        log_importance = self._log_importance(tokens)
        importance = importance_weight(log_importance, tokens.lengths, self.settings.importance)
        log_weight = sequence_log_weight(logp, self.behavior_logp, self.mask, self.lengths)
        # A sequence that was rejected contributes nothing: its weight is no reason for a shorter step.
        reached = segment_sum((importance > 0).long(), tokens.lengths) > 0
        ratio = ess_ratio(log_weight[reached])
        log_truncated = log_weight[reached].clamp(max=math.log(self.settings.importance.cap))
        one_way = tokens.sequence_mean(weight[self.mask].double())[reached].log()
        measured = self._measure(tokens, entropy, weight, log_importance, importance)
        if not math.isfinite(ratio) or not math.isfinite(loss):
            engine.discard_gradients()
            return report(self.batch, "non_finite_loss" if math.isfinite(ratio) else "non_finite_ess", **measured)
        factor = learning_rate_factor(ratio, self.settings.ess, full_ess_ratio)
        self._assert_ranks_agree(learning_rate * factor)
        taken = engine.step(learning_rate * factor)
        if taken.applied and self.settings.reference.type == "ema":
            engine.blend_reference(self.settings.reference.decay)
        measured |= {
            "loss": loss,
            "ess_ratio": ratio,
            "truncated_ess_ratio": ess_ratio(log_truncated),
            "one_way_ess_ratio": ess_ratio(log_truncated + one_way),
            "lr_factor": factor,
            "grad_norm": taken.grad_norm,
            "grad_norm_limit": taken.limit,
        }
        measured["learning_rate"] = learning_rate * factor if taken.applied else math.nan
        return report(self.batch, None if taken.applied else "non_finite_gradient", **measured)

    def loss(self, micro_batch: MicroBatch, statistics: TokenStatistics) -> Tensor:
        """The micro-batch's share of -(1/B) sum_i (1/L_i) sum_t importance_t weight_t surrogate_t, or as aggregated."""
        at, sequences = micro_batch.token_index.to(self.device), micro_batch.sequence_index.to(self.device)
        if not self.scores_first:
            self._prepare(at, sequences, statistics.logp.detach(), statistics.sum_p2)
        lengths, mask = self.lengths[sequences], self.mask[at]
        tokens = self._tokens(at, sequences, statistics.logp, statistics.hidden)
        weight = self.objective.token_weight(tokens, self.settings.objective)
        importance = importance_weight(self._log_importance(tokens), tokens.lengths, self.settings.importance)
        token_loss = -importance * weight * self.objective.surrogate(tokens, self.settings.objective)
        scale = token_scale(
            self.settings.aggregation,
            mask,
            lengths,
            step_sequences=self.step_sequences,
            step_tokens=self.step_tokens,
            constant_tokens=self.settings.constant_tokens,
        )
        self.logp[at], self.entropy[at] = statistics.logp.detach(), statistics.entropy
        self.one_way_weight[at[mask]] = weight
        return aggregate(token_loss, scale[mask])

    def log_proxy_norms(self, at: Tensor, sequences: Tensor, logp: Tensor, sum_p2: Tensor) -> Tensor:
        """log N of these sequences by the logit proxy, with the signs of self.advantage. float64 [n].

        at: their places on the batch's axis; logp, sum_p2: there, under the current policy. As with the norms themselves, a
        clipped token has none, nor has a sequence without an advantage.
        """
        settings, tokens = self.settings, self._tokens(at, sequences, logp)
        importance = importance_weight(self._log_importance(tokens), tokens.lengths, settings.importance)
        return log_gradient_norm(
            torch.zeros(len(sequences), dtype=torch.float64, device=self.device),
            importance.double()
            * self.objective.token_weight(tokens, settings.objective)
            * self.objective.slope(tokens, settings.objective),
            tokens.current_logp,
            sum_p2[self.mask[at]],
            torch.ones_like(importance, dtype=torch.bool),
            tokens.lengths,
            per_token=settings.aggregation != "sequence_mean",
        )

    # Inside

    def _packed(self, batch: StepBatch) -> tuple[list[MicroBatch], bool]:
        """This rank's micro-batches, and whether the current policy has to be scored before the backward.

        Not where the forward that is differentiated says in time what baseline and objective need to know of the current
        policy: in a step of one micro-batch everything, in a micro-batch of whole groups their baselines.
        """
        settings, engine = self.settings, self.engine
        ranks = {"rank": engine.rank, "world_size": engine.world_size}
        rows = {"row_tokens": settings.row_tokens, "rows_per_micro_batch": settings.rows_per_micro_batch}
        of_the_step = self.objective.statistics is not None
        if self.is_proxy and not of_the_step:
            by_group = pack_whole_groups(batch, **rows, **ranks)
            if by_group is not None:
                return by_group, False
        micro_batches = one_each(batch, **ranks) if self.is_exact else pack(batch, **rows, **ranks)
        is_step = len(micro_batches) == 1 and engine.world_size == 1
        return micro_batches, (of_the_step or self.is_proxy) and not is_step

    def _backward(self) -> float:
        loss = self.engine.backward(self.micro_batches, self.loss)
        if self.is_proxy:  # each rank knows the baselines of its groups, or, having scored first, all of them
            self._take_baseline(self.baseline if self.scores_first else self.engine.sum_over_ranks(self.baseline))
        return loss

    def _exact_backward(self) -> float:
        """With the baseline of the gradient norms; self.advantage is the signs before and the advantages after."""
        exact = ExactBaseline(self.reward, self.group, self.settings.advantage.normalize)
        of_sign = torch.zeros_like(self.reward)

        def loss(micro_batch: MicroBatch, statistics: TokenStatistics) -> Tensor:
            value = self.loss(micro_batch, statistics)
            of_sign[micro_batch.sequence_index.to(self.device)] = value.detach().double()
            return value

        self.engine.backward_in_two_sums(self.micro_batches, loss, exact.share)
        self._take_baseline(self.engine.sum_over_ranks(exact.baseline))
        assert self.advantage is not None
        return float((of_sign * self.advantage.abs()).sum())

    def _take_baseline(self, baseline: Tensor) -> None:
        self.baseline_shift = float((baseline - group_mean(self.reward, self.group)).abs().mean())
        self.advantage = advantages(self.reward, baseline, self.group, self.settings.advantage.normalize)

    def _score(self, policy: Policy) -> TokenStatistics:
        """Of all ranks, on the batch's axis: [T]."""
        flat = self._flatten(self.micro_batches, self.engine.token_statistics(self.micro_batches, policy))
        return TokenStatistics(
            *(self.engine.sum_over_ranks(torch.stack([flat.logp, flat.entropy, flat.sum_p2])).unbind())
        )

    def _represent(self, policy: Policy) -> Tensor:
        """Mean hidden state of each sequence over its tokens that count, of all ranks. float32 [N, H]."""
        whole: Tensor | None = None
        for micro_batch in self.micro_batches:  # one at a time: hidden states are large
            (scored,) = self.engine.token_statistics([micro_batch], policy)
            assert scored.hidden is not None
            if whole is None:
                whole = torch.zeros(len(self.lengths), scored.hidden.shape[1], device=self.device)
            sequences = micro_batch.sequence_index.to(self.device)
            if len(sequences):
                keep = self.mask[micro_batch.token_index.to(self.device)]
                whole[sequences] = segment_mean(scored.hidden[keep].float(), self.counted[sequences])
        assert whole is not None
        return self.engine.sum_over_ranks(whole)

    def _flatten(self, micro_batches: Sequence[MicroBatch], scored: Sequence[TokenStatistics]) -> TokenStatistics:
        """This rank's micro-batches on the batch's axis, 0 elsewhere."""
        flat = torch.zeros(3, len(self.behavior_logp), device=self.device)
        for micro_batch, s in zip(micro_batches, scored, strict=True):
            if len(micro_batch.sequence_index):
                flat[:, micro_batch.token_index.to(self.device)] = torch.stack([s.logp, s.entropy, s.sum_p2])
        return TokenStatistics(*flat.unbind())

    def _assert_ranks_agree(self, learning_rate: float) -> None:
        """On every bit of it: ranks that step by different amounts hold different models from then on.

        Raises RuntimeError on every rank alike.
        """
        engine = self.engine
        if engine.world_size == 1:
            return
        own = torch.zeros(engine.world_size, dtype=torch.float64)
        own[engine.rank] = learning_rate
        rates = engine.sum_over_ranks(own).tolist()
        if len(set(rates)) > 1:
            raise RuntimeError(
                f"ranks would step at different rates, {', '.join(map(repr, rates))}: their batches or settings differ"
            )

    def _missing_references(self) -> int:
        scored = [self.teacher_logp] if self.reference_logp is None else [self.teacher_logp, self.reference_logp[None]]
        return int((~torch.isfinite(torch.cat(scored)[:, self.mask])).sum())

    def _prepare(self, at: Tensor, sequences: Tensor, logp: Tensor, sum_p2: Tensor) -> None:
        """What waits for the current policy: the baselines of these groups, the statistics of the step.

        at: places of `sequences`, whole groups of them and all of the step where there are such statistics, on the
        batch's axis; logp, sum_p2: there.
        """
        settings = self.settings
        if self.is_proxy:
            assert self.advantage is not None
            if self.objective.statistics is not None:  # of the signs, for want of more: which tokens are clipped
                self.statistics = self.objective.statistics(self._tokens(at, sequences, logp), settings.objective)
            reward = self.reward[sequences]
            # The weights need only the advantage's sign, which the baseline leaves as it is.
            log_norm = self.log_proxy_norms(at, sequences, logp, sum_p2)
            groups, group = torch.unique(self.group[sequences], return_inverse=True)
            self.baseline[groups] = minimum_variance_baseline(reward, log_norm, group)
            self.advantage[sequences] = advantages(reward, self.baseline[groups], group, settings.advantage.normalize)
        if self.objective.statistics is not None:
            self.statistics = self.objective.statistics(self._tokens(at, sequences, logp), settings.objective)

    @property
    def everything(self) -> tuple[Tensor, Tensor]:
        """All tokens and all sequences of the batch."""
        return torch.arange(len(self.mask), device=self.device), torch.arange(len(self.lengths), device=self.device)

    def _whole_step(self, logp: Tensor) -> Tokens:
        return self._tokens(*self.everything, logp)

    def _tokens(self, at: Tensor, sequences: Tensor, logp: Tensor, hidden: Tensor | None = None) -> Tokens:
        """at: places of whole `sequences` on the batch's axis; logp, hidden: there, under the current policy."""
        assert self.advantage is not None
        keep = self.mask[at]
        at, logp = at[keep], logp[keep]
        current, lengths = logp.detach(), self.counted[sequences]
        nothing = torch.zeros(0, dtype=torch.float64, device=self.device)
        kept = torch.zeros(len(at), 0, device=self.device) if hidden is None else hidden[keep].float()
        if self.reference_hidden is None or hidden is None:
            held = segment_mean(kept.detach(), lengths)
        else:
            held = self.reference_hidden[sequences]
        return Tokens(
            logp=logp,
            current_logp=current,
            proximal_logp=current if self.proximal_logp is None else self.proximal_logp[at],
            behavior_logp=self.behavior_logp[at],
            reference_logp=current if self.reference_logp is None else self.reference_logp[at],
            teacher_logp=self.teacher_logp[:, at],
            hidden=kept,
            reference_hidden=held,
            advantage=self.advantage[sequences].repeat_interleave(lengths),
            lag_steps=self.lag_steps[at],
            lengths=lengths,
            statistics=nothing if self.statistics is None else self.statistics,
        )

    def _log_importance(self, tokens: Tokens) -> Tensor:
        """log importance weights under the objective's numerator. float64 [T]."""
        numerator = self.settings.objective.numerator
        if numerator == "none":
            return torch.zeros_like(tokens.current_logp, dtype=torch.float64)
        above = tokens.current_logp if numerator == "current" else tokens.proximal_logp
        return log_importance(above.float() - tokens.behavior_logp.float(), tokens.lengths, self.settings.importance)

    def _measure(
        self, tokens: Tokens, entropy: Tensor, weight: Tensor, log_importance: Tensor, importance: Tensor
    ) -> dict[str, float | None]:
        """Means over tokens that count, from all ranks' [T]; of importance weights, over what they are one of."""
        settings = self.settings
        if settings.importance.level == "sequence":
            last = (tokens.lengths.cumsum(0) - 1)[tokens.lengths > 0]
            log_importance, importance = log_importance[last], importance[last]
        weighs = settings.objective.numerator != "none"
        beyond = log_importance > math.log(settings.importance.cap)
        return {
            "entropy": float(entropy[self.mask].mean()),
            "mismatch_kl": kl_estimate(tokens.current_logp, tokens.behavior_logp),
            **self._staleness(tokens),
            "truncated_fraction": float(beyond.double().mean()) if weighs else None,
            "mean_importance_ratio": float(importance.mean()) if weighs else None,
            "one_way_mean": float(weight[self.mask].mean()),
            "reference_gap": float((tokens.current_logp - tokens.reference_logp).mean()),
            "mean_baseline_shift": self.baseline_shift,
            **one_way_bounds(tokens, weight[self.mask], settings.objective),
            **sign_fractions(tokens, self.objective.slope(tokens, settings.objective)),
        }

    def _staleness(self, tokens: Tokens) -> dict[str, float | None]:
        if self.weights_moved and self.proximal_logp is None:
            return {}
        fresh = tokens.lag_steps == 0
        return {
            "engine_mismatch_kl": kl_estimate(tokens.proximal_logp[fresh], tokens.behavior_logp[fresh])
            if bool(fresh.any())
            else None,
            "before_batch_kl": kl_estimate(tokens.proximal_logp, tokens.behavior_logp),
            "within_batch_kl": kl_estimate(tokens.current_logp, tokens.proximal_logp),
        }


def _without_pivots(batch: StepBatch) -> StepBatch:
    """The pivot of each group is its baseline and nothing else: no token of it counts (MC-GRPO)."""
    mask, ends = batch.mask.clone(), batch.cu_seqlens.tolist()
    for pivot in pivots(batch.reward, batch.group).tolist():
        mask[ends[pivot] : ends[pivot + 1]] = False
    return dataclasses.replace(batch, mask=mask)
