"""The real engine takes a mixture of experts from the learner, whose names in memory and in a checkpoint differ.

One engine, because a start takes half a minute: experts are where names, fusing and vLLM's packing of weights all meet.
"""

import asyncio
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from learner.engine.policy_model import PolicyModel, inputs, probe, probe_logp
from rollout.vllm.engine import VllmEngine
from services.config.run import RunConfig
from services.weights.buckets import pack
from services.wire.weights import Gap, WeightManifest
from tests.architectures import VOCABULARY, write_architecture
from tests.rollout.vllm.test_engine import Sender, soon

TOKENS = list(range(1, VOCABULARY, 4))


def config_of(folder: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "experts-test",
            "device": "cpu",
            "model": {"path": str(folder), "max_length": 64, "dtype": "float32"},
            "prompts": {"source": {"type": "jsonl", "path": "unused.jsonl"}},
            "rollout": {"sampling": {"max_tokens": 32}, "max_concurrent_sequences": 8, "kv_cache_gib": 0.05},
            "learner": {"steps": 1, "groups_per_step": 1},
            "weights": {"type": "gloo"},
        }
    )


@torch.no_grad()
def logp_of(model: PolicyModel) -> list[float]:
    statistics = model(*inputs(probe(TOKENS, packed=True), torch.device("cpu")))
    return probe_logp(TOKENS, statistics[0])


def as_sent(model: PolicyModel) -> list[tuple[str, torch.Tensor]]:
    weights = [(name, parameter.detach()) for name, parameter in model.named_weights()]
    return model.under_checkpoint_names([*weights, *model.named_buffers_kept()])


def test_experts_arrive_where_they_belong(tmp_path: Path) -> None:
    folder = write_architecture(tmp_path, "qwen3_moe")
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0").save_pretrained(folder)
    config = config_of(folder)
    model = PolicyModel(config.model, head_chunk_tokens=64, gradient_checkpointing=False)
    engine, sender = VllmEngine(config), Sender()

    async def publish(version: int) -> None:
        packed = pack(as_sent(model), bucket_mib=1)
        manifest = WeightManifest(
            policy_version=version,
            pg_generation=1,
            buckets=tuple(bucket for bucket, _ in packed),
            probes=(),
            bound=Gap(1e-3, 1e-3, 1e-3),
        )
        await asyncio.gather(
            engine.stage_and_swap(manifest, soon()), sender.send(manifest, [flat for _, flat in packed])
        )

    async def scenario() -> None:
        await engine.start()
        on_disk = await engine.probe(TOKENS, soon())
        assert on_disk == pytest.approx(logp_of(model), abs=1e-4)
        await sender.meet(engine)
        await publish(0)
        assert await engine.probe(TOKENS, soon()) == pytest.approx(on_disk, abs=1e-6)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        await publish(1)
        moved = logp_of(model)
        assert max(abs(a - b) for a, b in zip(moved, on_disk, strict=True)) > 0.1
        assert await engine.probe(TOKENS, soon()) == pytest.approx(moved, abs=1e-4)

    with asyncio.Runner() as runner:
        try:
            runner.run(asyncio.wait_for(scenario(), 120))
        finally:
            runner.run(engine.stop())
            sender.close()
