"""TrainEngine over DeepSpeed ZeRO 0-3, on CPU (gloo, float32 or bfloat16) and GPU (NCCL).

The reference policy is a second copy of this rank's weights (reference_weights.py). Each teacher is a model of its own, whole
on every rank.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from learner.batch.micro_batch import MicroBatch
from learner.checkpoint import read_json
from learner.engine.checkpoint_parts import damage_of_parts
from learner.engine.deepspeed_setup import (
    clips_itself,
    deepspeed_config,
    import_deepspeed,
    join_ranks,
    partition,
    postpones_reduction,
)
from learner.engine.earlier_format import is_of_before, load_of_before
from learner.engine.engine_state import EngineState
from learner.engine.export import write_folder
from learner.engine.gradient_limit import GradientLimit
from learner.engine.lora import Adapters
from learner.engine.optimizer import LARGEST_NORM, make_optimizer
from learner.engine.outgoing import OutgoingWeights, weight_copies
from learner.engine.policy_model import PolicyModel, inputs, model_dtype, probe_logps, probes, trained_parameters
from learner.engine.protocol import Backward, GradientStep, GradientSum, LossFunction, Policy, TokenStatistics
from learner.engine.reference_weights import ReferenceWeights
from learner.engine.separation import Separation, may_pack, may_share_prompts, measure_separation
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.errors import InputError, RatchetError
from services.metrics import waiting
from services.models.adapted import check_same_adapters, description
from services.run.checkpoint_files import Damaged
from services.run.json_text import json_text

ADAPTER_FOLDER = "adapter"
"""Folder inside an export that holds the adapters alone, if there are any."""
R = TypeVar("R")


@contextlib.contextmanager
def _collective() -> Iterator[None]:
    """Show the time inside as spent in a collective operation.

    Waits for: the other ranks.
    Until: the deadline of collectives (collective_timeout_s).
    Ended by: the slowest rank's arrival, or the end of a rank, which breaks the collective.
    Metric: ratchet_waiting{room="learner", awaiting="other ranks"}.
    """
    with waiting("learner", "other ranks"):
        yield


class DeepSpeedEngine:
    """One per process. The process group comes from torchrun's environment, or is made for a single rank."""

    def __init__(
        self,
        model: ModelConfig,
        settings: LearnerConfig,
        device: Literal["cpu", "cuda"],
        *,
        collective_timeout_s: float = 1800.0,
        seed: int = 0,
    ) -> None:
        """collective_timeout_s: how long a collective waits for the other ranks. seed: decides the first factors of adapters."""
        deepspeed = import_deepspeed(device)
        self._deepspeed = deepspeed
        self._device = join_ranks(deepspeed, device, settings.threads, collective_timeout_s)
        self._model_settings = model
        self._lora = settings.lora
        self.hyperparameters = settings.optimizer
        self._predictor_width = settings.objective.trains_predictor
        self._stage = settings.zero_stage
        self.is_sharded = settings.zero_stage == 3
        self._postpones_reduction = postpones_reduction(settings)
        config = deepspeed_config(model, settings)  # refuses what does not go together before a model is loaded
        self.model = _policy(model, settings, seed)
        """The policy on this rank; at stage 3 its parameters are partitioned."""
        self._teachers = _teachers(settings, self._device)
        self._optimizer = make_optimizer(self.model, settings.optimizer, self._device)
        self._optimizer.clips_itself = clips_itself(model, settings)
        self.gradient_limit = GradientLimit(settings.optimizer)
        """How long a gradient may be."""
        if self.is_sharded:
            partition(deepspeed, self.model, config, model_dtype(model), self._device)
        self.wrapped, *_ = deepspeed.initialize(model=self.model, optimizer=self._optimizer, config=config)
        """DeepSpeed's engine."""
        if self._stage > 0:
            self._optimizer.zero = self.wrapped.optimizer
        self.reference = ReferenceWeights(self.model.causal_lm, settings.reference, sharded=self.is_sharded)
        """The reference policy's part on this rank."""
        self._state = EngineState(self.model, self._optimizer, self.wrapped.optimizer, self._stage)
        self._outgoing = OutgoingWeights(self.model, self._gathered, copies=self.rank == 0)
        self._largest: list[Tensor] = []
        """Largest magnitude in each gradient since the last step; nan and inf come through."""
        for parameter in trained_parameters(self.model):
            parameter.register_hook(self._note_gradient)
        may_pack_rows, may_share = self._what_rows_may_hold()
        self._packs_rows = may_pack_rows and settings.packed_rows
        self._shares_prompts = may_share and self._packs_rows

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        return dist.get_world_size()

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def reference_is_current(self) -> bool:
        return self.reference.is_current

    @property
    def packs_rows(self) -> bool:
        return self._packs_rows

    @property
    def shares_prompts(self) -> bool:
        return self._shares_prompts

    # Scoring and gradients

    def token_statistics(self, micro_batches: Sequence[MicroBatch], policy: Policy) -> list[TokenStatistics]:
        if isinstance(policy, int):
            with torch.no_grad():
                return [TokenStatistics(*self._teachers[policy](*inputs(m, self._device))) for m in micro_batches]
        with torch.no_grad(), self.reference.in_place() if policy == "reference" else contextlib.nullcontext():
            return [self._forward(m) for m in micro_batches]

    def backward(self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R]) -> Backward[R]:
        total = torch.zeros((), device=self._device)
        records: list[R] = []
        for micro_batch in micro_batches:
            total += self._backward(micro_batch, loss, records)
        return Backward(float(total), records)

    def backward_one_by_one(
        self, micro_batches: Sequence[MicroBatch], loss: LossFunction[R], total: GradientSum[R]
    ) -> Backward[R]:
        parameters = trained_parameters(self.model)
        value = torch.zeros((), device=self._device)
        records: list[R] = []
        with self._unreduced():
            for number, micro_batch in enumerate(micro_batches):
                value += self._backward(micro_batch, loss, records)
                gradients: list[Tensor] = [p.grad for p in parameters]  # type: ignore[misc]
                if not _is_filler(micro_batch):
                    total.add(records[-1], gradients, scale=self.world_size)
                if number + 1 < len(micro_batches):
                    for parameter in parameters:
                        parameter.grad = None
            total.write(gradients)  # in place: at stage 3 no other tensor may be set as gradient
        return Backward(float(value), records)

    def _backward(self, micro_batch: MicroBatch, loss: LossFunction[R], records: list[R]) -> Tensor:
        """One micro-batch: its share of the loss, whose record is appended to `records`."""
        statistics = self._forward(micro_batch)
        if _is_filler(micro_batch):
            # Through every output that has a gradient, as in a loss: at stage 3 DeepSpeed compares over ranks what a backward ran
            # through, and at stage 2 every rank reduces the gradient of every parameter.
            outputs = (statistics.logp, statistics.entropy, statistics.hidden, statistics.predicted)
            share = torch.stack([x.sum() * 0 for x in outputs if x is not None and x.requires_grad]).sum()
        else:
            share, record = loss(micro_batch, statistics)
            records.append(record)
        # Gradients are averaged over ranks, shares are to be summed.
        self.wrapped.backward(share * self.world_size, scale_wrt_gas=False)
        return share.detach()

    @contextlib.contextmanager
    def _unreduced(self) -> Iterator[None]:
        """Within it, a backward leaves this rank's whole gradient; the gradient at the end is reduced and partitioned."""
        if not self._postpones_reduction:
            raise InputError(
                "the engine was made to reduce gradients as they come; "
                'set learner.advantage.baseline = "minimum_variance_exact"'
            )
        if self._stage == 0:  # reduces at the step
            yield
            return
        with self.wrapped.coalesce_grad_reduction():
            yield

    def step(self, learning_rate: float) -> GradientStep:
        if not self._gradients_finite():
            self.discard_gradients()
            return GradientStep(math.nan, self.gradient_limit.now, applied=False)
        limit = self.gradient_limit.now
        if self._optimizer.clips_itself:
            self._optimizer.clip_norm = limit
        else:
            self.wrapped.optimizer.clip_grad = limit
        groups = self.wrapped.optimizer.param_groups
        before = [group["lr"] for group in groups]
        try:
            for group in groups:
                group["lr"] = learning_rate
            self.wrapped.step()
        finally:
            for group, rate in zip(groups, before, strict=True):
                group["lr"] = rate
        self._largest.clear()
        norm = float(self._optimizer.grad_norm if self._optimizer.clips_itself else self.wrapped.get_global_grad_norm())
        if not norm <= LARGEST_NORM:  # of finite gradients; nothing was applied
            return GradientStep(math.nan, limit, applied=False)
        self.reference.is_current = False
        self.gradient_limit.observe(norm)
        return GradientStep(norm, limit, applied=True)

    def discard_gradients(self) -> None:
        self._optimizer.skip = True
        try:
            self.wrapped.step()
        finally:
            self._optimizer.skip = False
            self._largest.clear()

    # The reference

    def ratchet_reference(self) -> None:
        self.reference.swap()

    def roll_back_reference(self) -> None:
        self.reference.roll_back()

    def blend_reference(self, decay: float, *, debiased: bool = False) -> None:
        self.reference.blend(decay, debiased=debiased)

    # Weights out

    def weight_shapes(self, dtype: torch.dtype | None) -> list[tuple[str, Tensor]]:
        return self._outgoing.shapes(dtype)

    def copy_weights(self, into: Mapping[str, Tensor]) -> None:
        self._outgoing.copy(into)

    def snapshot(self, dtype: torch.dtype | None) -> list[tuple[str, Tensor]]:
        """What `weight_copies` makes of this engine."""
        return weight_copies(self, dtype)

    def _gathered(self, parameters: Sequence[nn.Parameter]) -> contextlib.AbstractContextManager[Any]:
        """Inside it, these parameters are whole on this rank."""
        if not self.is_sharded or not parameters:
            return contextlib.nullcontext()
        return self._deepspeed.zero.GatheredParameters(list(parameters))  # type: ignore[no-any-return]

    def sequence_logps(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        (statistics,) = self.token_statistics([probes(sequences, packed=self._packs_rows)], "current")
        return probe_logps(sequences, statistics.logp)

    def export(self, folder: Path) -> None:
        weights = self.snapshot(None)
        if self.rank == 0:
            write_folder(self._model_settings, weights, folder)
        if self.model.adapters is not None:
            self._export_adapters(self.model.adapters, folder / ADAPTER_FOLDER)
        self.barrier()

    def _export_adapters(self, adapters: Adapters, folder: Path) -> None:
        named = adapters.named_factors()
        gathered = [factor for _, factor in named] if self.is_sharded else []
        with self._deepspeed.zero.GatheredParameters(gathered):
            if self.rank == 0:
                adapters.write([(name, factor.detach().to("cpu", copy=True)) for name, factor in named], folder)

    # Checkpoints

    def save(self, folder: Path, *, in_background: bool = False) -> None:
        if self.rank == 0:
            (folder / "engine.json").write_text(json_text(self._description()), encoding="utf-8")
        self._state.save(folder, self.reference, in_background=in_background)
        if not in_background:
            self.barrier()

    def is_saved(self, *, wait: bool) -> bool:
        done, fault = False, None
        try:
            done = self._state.writer.is_done(wait=wait)
        except Exception as error:  # raised once every rank knows
            fault = error
        writing, failed = self.sum_over_ranks(torch.tensor([float(not done), float(fault is not None)])).tolist()
        if fault is not None:
            raise fault
        if failed:
            raise RatchetError("another rank of the learner could not write its part of a checkpoint; its log says why")
        return not writing

    def damage(self, folder: Path) -> Damaged | None:
        return damage_of_parts(folder, self.rank, self.world_size, self.sum_over_ranks)

    def load(self, folder: Path) -> None:
        written = read_json(folder, "engine.json")
        written.setdefault("predictor_width", 0)  # checkpoints of before there was one
        for key in ("dtype", "predictor_width"):
            if written[key] != self._description()[key]:
                raise InputError(
                    f"the checkpoint {folder} was written with {key} = {written[key]}, this learner has "
                    f"{key} = {self._description()[key]}; start it with the same value, or start a new run from its export"
                )
        check_same_adapters(str(folder), written.get("lora"), self._lora)
        is_current = written["reference_is_current"]
        if is_of_before(folder):
            load_of_before(
                folder,
                written,
                self.wrapped,
                self.reference,
                ranks=self.world_size,
                rank=self.rank,
                stage=self._stage,
                has_adapters=self._lora is not None,
            )
        else:
            self._state.load(folder, written["parameters"], self.reference, reference_is_current=is_current)
        self._take_hyperparameters()
        self.gradient_limit = GradientLimit(self.hyperparameters, written["mean_grad_norm"])
        # Null, which is infinity, or of before it was written: an average of many steps is what it comes to.
        average_weight = written.get("average_weight")
        self.reference.average_weight = math.inf if average_weight is None else average_weight
        self.barrier()

    def averages(self, key: Literal["exp_avg", "exp_avg_sq"]) -> dict[str, Tensor]:
        """What this rank holds of one of Adam's averages, flat, on the CPU, by parameter: a copy. Empty before the first step."""
        return self._state.averages(key)

    def _take_hyperparameters(self) -> None:
        """Set the optimizer's hyperparameters to those of today's settings: a checkpoint of 0.1.0 brings its own."""
        given = self.hyperparameters
        for group in self.wrapped.optimizer.param_groups:
            group.update(betas=(given.beta1, given.beta2), eps=given.eps, weight_decay=given.weight_decay)

    def _description(self) -> dict[str, Any]:
        return {
            "ranks": self.world_size,
            "zero_stage": self._stage,
            "dtype": self._model_settings.dtype,
            "predictor_width": self._predictor_width,
            "lora": description(self._lora),
            "reference_is_current": self.reference.is_current,
            "average_weight": self.reference.average_weight,
            "mean_grad_norm": self.gradient_limit.mean,
            "parameters": self._state.parameters,
        }

    # Ranks

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        if self.world_size == 1:
            return tensor.clone()
        total = tensor.to(self._device, copy=True)
        with _collective():
            dist.all_reduce(total)
            return total.to(tensor.device)

    def broadcast_bytes(self, payload: bytes | None) -> bytes:
        if self.world_size == 1:
            return payload or b""
        size = torch.tensor([len(payload or b"")], dtype=torch.int64, device=self._device)
        with _collective():
            dist.broadcast(size, 0)
        flat = torch.empty(int(size), dtype=torch.uint8, device=self._device)
        if self.rank == 0:
            flat.copy_(torch.frombuffer(bytearray(payload or b""), dtype=torch.uint8))
        with _collective():
            dist.broadcast(flat, 0)
        return flat.cpu().numpy().tobytes()

    def barrier(self) -> None:
        if self.world_size > 1:
            with _collective():
                dist.barrier()

    def close(self) -> None:
        self.wrapped.destroy()
        if dist.is_initialized():
            dist.destroy_process_group()

    # Inside

    def _what_rows_may_hold(self) -> tuple[bool, bool]:
        """(whether policy and teachers keep the sequences of a row apart, whether a row may have a prompt of several of them
        once). Collective; raises InputError as `may_pack` does."""
        named: list[tuple[str, PolicyModel, Policy]] = [("model.path", self.model, "current")]
        named += [(f"learner.teachers.{i}.path", teacher, i) for i, teacher in enumerate(self._teachers)]
        apart, shared = [], []
        for setting, model, policy in named:
            own = measure_separation(
                lambda batches, policy=policy: [s.logp for s in self.token_statistics(batches, policy)],  # type: ignore[misc]
                vocabulary=model.vocabulary,
                longest=self._model_settings.max_length,
                by_span=model.attends_by_span,
            )
            total = self.sum_over_ranks(torch.tensor(dataclasses.astuple(own), dtype=torch.float64))
            mean = Separation(*(total / self.world_size).tolist())  # the same on every rank, as the verdict has to be
            name, dtype = f"{setting} = {model.settings.path}", model_dtype(model.settings)
            apart.append(may_pack(name, mean, dtype))
            shared.append(apart[-1] and may_share_prompts(name, mean, dtype))
        return all(apart), all(shared)

    def _forward(self, micro_batch: MicroBatch) -> TokenStatistics:
        return TokenStatistics(*self.wrapped(*inputs(micro_batch, self._device)))

    def _note_gradient(self, gradient: Tensor) -> None:
        # Both propagate nan; on a CPU a norm without a bound (ord=inf) takes twenty times as long.
        self._largest.extend(torch.aminmax(gradient.detach()))

    def _gradients_finite(self) -> bool:
        finite = torch.isfinite(torch.stack(self._largest)).all() if self._largest else torch.tensor(True)
        return int(self.sum_over_ranks(finite.to(torch.int64))) == self.world_size


def _policy(model: ModelConfig, settings: LearnerConfig, seed: int) -> PolicyModel:
    policy = PolicyModel(
        model,
        head_chunk_tokens=settings.head_chunk_tokens,
        gradient_checkpointing=settings.gradient_checkpointing,
        stays_mapped=settings.zero_stage == 3,
    )
    if settings.lora is not None:
        policy.adapt(settings.lora, seed)
    policy.train()
    policy.serve(settings.objective)
    return policy


def _teachers(settings: LearnerConfig, device: torch.device) -> list[PolicyModel]:
    return [
        PolicyModel(
            teacher,
            head_chunk_tokens=settings.head_chunk_tokens,
            gradient_checkpointing=False,
            setting=f"learner.teachers.{number}.path",
        )
        .requires_grad_(False)
        .eval()
        .to(device)
        for number, teacher in enumerate(settings.teachers)
    ]


def _is_filler(micro_batch: MicroBatch) -> bool:
    return len(micro_batch.sequence_index) == 0
