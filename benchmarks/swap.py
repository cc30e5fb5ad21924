"""How long sampling stands still for a change of weights, on this machine's CPU: reloaded in the pause, or prepared before it.

    python -m benchmarks.swap [--layers 9] [--repeat 6] [--out .bench/swap.json]

A random Qwen2 of about 240 MiB in float32, 64 sequences in flight, one compute thread; another version every 3 s over gloo, from
this process. rollout.prepare_weights is false, then true, in two engines one after the other. `transfer` is until the version is
proven and, if it is, prepared; `pause` what the replica reports; `silence` the longest time without a new token from a second
before the transfer until a second after the swap, as the caller sees it, and `step` the median time between tokens. Medians of
--repeat versions after the first two, which an engine reloads and compares.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from prometheus_client import REGISTRY
from torch import Tensor

from benchmarks.machine import machine
from rollout.vllm.engine import VllmEngine
from services.config.run import RunConfig
from services.weights.buckets import pack
from services.wire.weights import Gap, WeightManifest
from tests.rollout.small_model import write_model
from tests.rollout.vllm.test_engine import Sender, prompt, soon

GROUPS, SIZE = 8, 8
EVERY_S = 3.0
BUCKET_MIB = 64
LONGEST = 500
UNCOUNTED = 2


def model_of(folder: Path, layers: int) -> list[tuple[str, Tensor]]:
    """Write a model and its tokenizer, and return its weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    write_model(folder, tied=True)  # for its tokenizer
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 8192, "hidden_size": 768, "intermediate_size": 2048}
    heads: dict[str, Any] = {"num_attention_heads": 12, "num_key_value_heads": 4, "num_hidden_layers": layers}
    ids: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    config = Qwen2Config(
        **sizes, **heads, **ids, tie_word_embeddings=True, max_position_embeddings=1024, dtype="float32"
    )
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    return [(name, parameter.detach()) for name, parameter in model.named_parameters()]


def run_config(folder: Path, *, prepare: bool) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "swap",
            "device": "cpu",
            "model": {"path": str(folder), "max_length": 512, "dtype": "float32"},
            "prompts": {"source": {"type": "jsonl", "path": "unused.jsonl"}},
            "rollout": {
                "sampling": {"max_tokens": LONGEST},
                "max_concurrent_sequences": GROUPS * SIZE,
                "kv_cache_gib": 1.0,
                "prepare_weights": prepare,
            },
            "learner": {"steps": 1, "groups_per_step": 1},
            "weights": {"type": "gloo"},
        }
    )


class Tokens:
    """When tokens came."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    async def watch(self) -> None:
        seen = 0.0
        while True:
            now = REGISTRY.get_sample_value("vllm:generation_tokens_total", {"model_name": self._name(), "engine": "0"})
            if now is not None and now != seen:
                seen = now
                self.times_s.append(time.perf_counter())
            await asyncio.sleep(0.002)

    def _name(self) -> str:
        for family in REGISTRY.collect():
            if family.name == "vllm:generation_tokens":
                return str(family.samples[-1].labels["model_name"])
        return ""

    def silences(self, begin_s: float, end_s: float) -> list[float]:
        within = [at_s for at_s in self.times_s if begin_s <= at_s <= end_s]
        return [later - earlier for earlier, later in pairwise(within)]


async def measure(config: RunConfig, versions: Sequence[list[tuple[Any, Tensor]]], repeat: int) -> dict[str, Any]:
    engine, sender, tokens = VllmEngine(config), Sender(), Tokens()
    await engine.start()
    await sender.meet(engine)
    stopping = False

    async def sample(group: int) -> None:
        while not stopping:
            await engine.sample(prompt(tokens=LONGEST - 20, size=SIZE, seed=group))

    async def publish(version: int) -> tuple[float, float, str]:
        packed = versions[version % len(versions)]
        manifest = WeightManifest(
            policy_version=version,
            pg_generation=1,
            buckets=tuple(bucket for bucket, _ in packed),
            probes=(),
            bound=Gap(0, 0, 0),
        )
        report, _ = await asyncio.gather(
            engine.stage_and_swap(manifest, soon()), sender.send(manifest, [flat for _, flat in packed])
        )
        return report.transfer_s, report.pause_s, report.kind

    found: dict[str, list[float]] = {"transfer": [], "pause": [], "silence": [], "step": []}
    kinds: list[str] = []
    running = [asyncio.create_task(sample(group)) for group in range(GROUPS)]
    running.append(asyncio.create_task(tokens.watch()))
    await asyncio.sleep(EVERY_S)
    for version in range(repeat + UNCOUNTED):
        began_s = time.perf_counter()
        transfer_s, pause_s, kind = await publish(version)
        swapped_s = time.perf_counter()
        await asyncio.sleep(EVERY_S)
        if version >= UNCOUNTED:
            silences = tokens.silences(began_s - 1.0, swapped_s + 1.0)
            row = {
                "transfer": transfer_s,
                "pause": pause_s,
                "silence": max(silences),
                "step": statistics.median(silences),
            }
            for name, value in row.items():
                found[name].append(value)
            kinds.append(kind)
    stopping = True
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await engine.stop()
    sender.close()
    medians = {f"{name}_s": statistics.median(values) for name, values in found.items()}
    shares = [pause / transfer for pause, transfer in zip(found["pause"], found["transfer"], strict=True)]
    return {
        "kinds": sorted(set(kinds)),
        **medians,
        "pause_over_transfer": statistics.median(shares),
        "largest_pause_s": max(found["pause"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=9)
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(".bench/swap.json"))
    asked = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        weights = model_of(Path(folder), asked.layers)
        moved = [(name, weight * 1.01) for name, weight in weights]
        versions = [pack(each, BUCKET_MIB) for each in (weights, moved)]
        mib = sum(flat.numel() for _, flat in versions[0]) / 2**20
        for name, prepare in (("reloaded in the pause", False), ("prepared and exchanged", True)):
            rows[name] = asyncio.run(measure(run_config(Path(folder), prepare=prepare), versions, asked.repeat))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": machine(["torch", "vllm"]), "mib": mib, "rows": rows}
    asked.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found["machine"]), f"{mib:.0f} MiB")
    for name, row in rows.items():
        print(f"| {name} | {json.dumps(row)} |")


if __name__ == "__main__":
    main()
