"""Who takes the steps: the learner, by spans or under masks, and TRL."""

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from benchmarks.attention.cases import GROUP_SIZE, Size, Way
from learner.batch.packing import pack
from learner.batch.step_batch import StepBatch
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.engine.policy_model import PolicyModel
from learner.step.learner_step import learner_step
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig

TRL_MICRO_BATCHES = 4


@contextmanager
def under_masks(model: PolicyModel, *, on: bool = True) -> Iterator[None]:
    """The model with the dense mask that transformers builds for it, if on."""
    own = model.causal_lm.config._attn_implementation
    if on:
        model.causal_lm.set_attn_implementation("sdpa")
        model.attends_by_span = False
    try:
        yield
    finally:
        if on:
            model.causal_lm.set_attn_implementation(own)
            model.attends_by_span = True


class Sharing:
    """The engine, with its word on shared prompts replaced."""

    def __init__(self, engine: DeepSpeedEngine, *, shares_prompts: bool) -> None:
        self._engine = engine
        self.shares_prompts = shares_prompts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class Learner:
    """Takes steps as the learner does."""

    def __init__(self, folder: Path, size: Size) -> None:
        model = ModelConfig(path=str(folder), max_length=2 * size.longest, dtype="float32")
        self.engine = DeepSpeedEngine(model, self.settings(size.row), "cpu")

    def settings(self, row_tokens: int) -> LearnerConfig:
        return LearnerConfig.model_validate(
            {
                "steps": 1,
                "groups_per_step": 1,
                "zero_stage": 0,
                "objective": {"type": "grpo"},
                "ess": {"enabled": False},
                "row_tokens": row_tokens,
                "rows_per_micro_batch": 1,
            }
        )

    def step(self, batch: StepBatch, way: Way) -> float:
        engine: Any = Sharing(self.engine, shares_prompts=way.shares)
        with under_masks(self.engine.model, on=way.dense):
            report = learner_step(engine, batch, self.settings(way.row_tokens), learning_rate=0.0)
        assert report.skipped is None, report.skipped
        return report.grad_norm

    def logp(self, batch: StepBatch, way: Way) -> Tensor:
        packed = pack(batch, row_tokens=way.row_tokens, rows_per_micro_batch=1, share_prompts=way.shares)
        found = torch.zeros(len(batch.response_ids))
        with under_masks(self.engine.model, on=way.dense):
            for micro_batch, said in zip(packed, self.engine.token_statistics(packed, "current"), strict=True):
                found[micro_batch.token_index] = said.logp
        return found


class Trl:
    """TRL's GRPO loss, its own head in tiles included, on sequences that are padded to the longest of the step."""

    def __init__(self, folder: Path) -> None:
        from trl.trainer import grpo_trainer
        from trl.trainer.utils import add_fused_lm_head

        self._trainer: Any = grpo_trainer.GRPOTrainer
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        ).train()
        add_fused_lm_head(self.model, outputs=("log_probs", "entropy"))
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0)

    def inputs(self, batch: StepBatch) -> list[dict[str, Tensor]]:
        responses = batch.response_ids.split(batch.cu_seqlens.diff().tolist())
        ids = pad_sequence(list(responses), batch_first=True)
        mask = pad_sequence([torch.ones(len(r), dtype=torch.int64) for r in responses], batch_first=True)
        prompts = torch.stack(batch.prompt_ids)  # of one length each, in every batch that is measured here
        group = batch.reward.view(-1, GROUP_SIZE)
        advantage = ((group - group.mean(1, keepdim=True)) / (group.std(1, keepdim=True) + 1e-4)).flatten().float()
        columns = {
            "prompt_ids": prompts,
            "prompt_mask": torch.ones_like(prompts),
            "completion_ids": ids,
            "completion_mask": mask,
            "advantages": advantage,
        }
        parts = {name: column.chunk(TRL_MICRO_BATCHES) for name, column in columns.items()}
        return [{name: parts[name][i] for name in columns} for i in range(TRL_MICRO_BATCHES)]

    def _stub(self) -> SimpleNamespace:
        """What the loss reads of a trainer."""
        plain = SimpleNamespace(
            num_processes=1,
            is_main_process=False,
            gather=lambda x: x,
            gather_for_metrics=lambda x: x,
            reduce=lambda x, reduction: x,
            autocast=nullcontext,
        )
        stub = SimpleNamespace(
            importance_sampling_level="token",
            epsilon_low=0.2,
            epsilon_high=0.2,
            loss_type="grpo",
            args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
            accelerator=plain,
            model=self.model,
            beta=0.0,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            use_vllm=False,
            aux_loss_enabled=False,
            _entropy_bonus_enabled=False,
            current_gradient_accumulation_steps=TRL_MICRO_BATCHES,
            _metrics={"train": defaultdict(list)},
        )
        score = self._trainer._get_per_token_logps_and_entropies
        stub._get_per_token_logps_and_entropies = lambda *given, **keywords: score(stub, *given, **keywords)
        return stub

    def step(self, batch: StepBatch, _: Way) -> float:
        stub = self._stub()
        for part in self.inputs(batch):
            self._trainer._compute_loss(stub, self.model, part).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return math.nan

    def logp(self, batch: StepBatch, _: Way) -> Tensor:
        stub, found = self._stub(), []
        with torch.no_grad():
            for part in self.inputs(batch):
                ids = torch.cat([part["prompt_ids"], part["completion_ids"]], 1)
                mask = torch.cat([part["prompt_mask"], part["completion_mask"]], 1)
                logp, _, _ = stub._get_per_token_logps_and_entropies(
                    self.model, ids, mask, part["completion_ids"].shape[1]
                )
                found.append(logp[part["completion_mask"].bool()])
        return torch.cat(found)
