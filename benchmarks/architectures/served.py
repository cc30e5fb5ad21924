"""One model in a real engine, and a learner's copy of it that sends weights: what rows and tests compare."""

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from learner.batch.micro_batch import MicroBatch
from learner.engine.policy_model import PolicyModel, inputs, model_dtype, probe_logps, probes, scoring_batch
from learner.engine.separation import may_pack, measure_separation
from rollout.engine import SwapReport
from rollout.vllm.engine import VllmEngine
from services.config.model import ModelConfig
from services.config.run import RunConfig
from services.weights.buckets import pack
from services.wire.codec import Array
from services.wire.prompt import Prompt
from services.wire.trajectory import Trajectory
from services.wire.weights import Gap, WeightManifest
from tests.rollout.vllm.test_engine import Sender, soon

T = TypeVar("T")
Dtype = Literal["float32", "bfloat16"]
CPU = torch.device("cpu")
START_S = 240.0
"""An engine's start, a probe or a swap of a tiny model takes seconds; longer is a fault."""


def run_config(folder: Path, dtype: Dtype, max_length: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "architectures",
            "device": "cpu",
            "model": {"path": str(folder), "max_length": max_length, "dtype": dtype},
            "prompts": {"source": {"type": "jsonl", "path": "unused.jsonl"}},
            "rollout": {"sampling": {"max_tokens": 16}, "max_concurrent_sequences": 8, "kv_cache_gib": 0.1},
            "learner": {"steps": 1, "groups_per_step": 1},
            "weights": {"type": "gloo"},
        }
    )


class Trained:
    """The learner's side: a model from a folder, scored as training scores it."""

    def __init__(self, settings: ModelConfig) -> None:
        self.settings = settings
        self.model = PolicyModel(settings, head_chunk_tokens=64, gradient_checkpointing=False)
        apart = measure_separation(
            self._score,
            vocabulary=self.model.vocabulary,
            longest=settings.max_length,
            by_span=self.model.attends_by_span,
        )
        self.packs = may_pack(settings.path, apart, model_dtype(settings))
        """Whether several sequences share a row."""

    @torch.no_grad()
    def _score(self, batches: Sequence[MicroBatch]) -> list[Tensor]:
        return [self.model(*inputs(batch, CPU))[0] for batch in batches]

    def probe(self, tokens: Sequence[int]) -> list[float]:
        """Log-probs of each token but the first, nats."""
        return probe_logps([tokens], self._score([probes([tokens], packed=self.packs)])[0])[0]

    def score(self, prompt: Sequence[int], response: Sequence[int]) -> list[float]:
        """Log-probs of the response, nats."""
        (logp,) = self._score([scoring_batch([[[*prompt, *response]]])])
        return logp[len(prompt) - 1 :].tolist()

    @torch.no_grad()
    def move(self, size: float) -> None:
        """Change every weight, router biases included, by its own deviation times `size` and at least a little."""
        draw = torch.Generator().manual_seed(1)
        for _, weight in [*self.model.named_weights(), *self.model.named_buffers_kept()]:
            if weight.is_floating_point():
                spread = max(float(weight.float().std()) if weight.numel() > 1 else 0.0, 0.05)
                weight.add_((size * spread * torch.randn(weight.shape, generator=draw)).to(weight.dtype))

    def checkpoint(self) -> list[tuple[str, Tensor]]:
        """What the learner sends and exports."""
        weights = [(name, parameter.detach()) for name, parameter in self.model.named_weights()]
        return self.model.under_checkpoint_names([*weights, *self.model.named_buffers_kept()])


class Served:
    """The engine's side, fed by a real broadcast."""

    def __init__(self, config: RunConfig) -> None:
        self.engine = VllmEngine(config)
        self._sender = Sender()
        self._runner = asyncio.Runner()
        self._joined = False

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asyncio.wait_for(work, START_S))

    def start(self) -> None:
        self.do(self.engine.start())

    def probe(self, tokens: Sequence[int]) -> list[float]:
        return self.do(self.engine.probe(tokens, soon()))

    def swap(self, version: int, tensors: Sequence[tuple[str, Tensor]]) -> SwapReport:
        """Send these weights and have the engine take them."""
        return self.do(self._swap(version, tensors))

    async def _swap(self, version: int, tensors: Sequence[tuple[str, Tensor]]) -> SwapReport:
        if not self._joined:
            await self._sender.meet(self.engine)
            self._joined = True
        packed = pack(tensors, bucket_mib=1)
        manifest = WeightManifest(
            policy_version=version,
            pg_generation=1,
            buckets=tuple(bucket for bucket, _ in packed),
            probes=(),
            bound=Gap(1e-3, 1e-3, 1e-3),
        )
        report, _ = await asyncio.gather(
            self.engine.stage_and_swap(manifest, soon()), self._sender.send(manifest, [flat for _, flat in packed])
        )
        return report

    def sample(self, prompt: Sequence[int], *, size: int, tokens: int) -> tuple[Trajectory, ...]:
        return self.do(
            self.engine.sample(
                Prompt(
                    group_id="train-0",
                    sequence_number=0,
                    purpose="train",
                    row=0,
                    token_ids=Array.of(prompt, "<i4"),
                    group_size=size,
                    temperature=1.0,
                    max_tokens=tokens,
                    stop_token_ids=(),
                    seed=11,
                    grader="exact",
                    reference="",
                    options={},
                )
            )
        )

    def close(self) -> None:
        self._runner.run(self.engine.stop())
        self._runner.close()
        self._sender.close()
