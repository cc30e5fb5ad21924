"""What it costs to bring a version of the weights to a replica, on this machine's CPU; before and now, side by side.

    python -m benchmarks.weights [--layers 27] [--repeat 5] [--only-transfers] [--out .bench/weights.json]

A model with random weights in the shape of Qwen2.5-0.5B (which has 24 layers). First what a snapshot costs the training thread:
as it was at 7f044fc (two fresh copies and the digests), and now (one copy into kept buckets), with the digests, which another
thread computes now. Then the ways to receivers in other processes (weight_transfer.py): a broadcast over gloo to one and to
three, beside one of bare bytes, and by HTTP; each whole and as what changed. Seconds a GiB, the median of --repeat times after
one that is not counted; what is compared takes turns. Twelve GiB of memory at 27 layers.
"""

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import weights_before
from benchmarks.machine import machine
from benchmarks.weight_transfer import CPU, fetches, transfers
from learner.engine.outgoing import OutgoingWeights
from learner.engine.policy_model import PolicyModel
from learner.publish.kept_buckets import BucketPool
from services.config.model import ModelConfig
from services.weights.buckets import digest

BOUNDS = {1: 1.15, 3: 1.3}
"""Replicas -> the most that a sync may take, of a bare broadcast."""
BUCKET_MIB = 64
SIZES: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def policy(layers: int, sizes: dict[str, Any]) -> PolicyModel:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=layers, **sizes)).save_pretrained(folder)
        settings = ModelConfig(path=folder, max_length=512, dtype="float32")
        return PolicyModel(settings, head_chunk_tokens=512, gradient_checkpointing=False)


def snapshots(model: PolicyModel, dtype: torch.dtype, repeat: int) -> dict[str, float]:
    """Seconds a GiB; `same`: whether both ways have the same digests."""
    outgoing = OutgoingWeights(model, lambda _: contextlib.nullcontext(), copies=True)
    pool = BucketPool(outgoing.shapes(dtype), BUCKET_MIB, CPU)
    seconds: dict[str, list[float]] = {"before": [], "now": [], "digest": []}
    same = True
    for turn in range(repeat + 1):
        (packed, before_s) = timed(lambda: weights_before.pack(weights_before.snapshot(model, dtype), BUCKET_MIB))
        kept, filling = pool.take()
        _, now_s = timed(lambda kept=kept: outgoing.copy(kept.named))  # type: ignore[misc]
        assert kept.hold(filling)
        digests, digest_s = timed(lambda kept=kept: [digest(flat) for flat in kept.flat])  # type: ignore[misc]
        kept.release(arrived=True)
        same = same and digests == [found for found, _ in packed]
        if turn:
            for name, value in (("before", before_s), ("now", now_s), ("digest", digest_s)):
                seconds[name].append(value)
        else:
            first_s, gib = now_s, sum(flat.numel() for flat in kept.flat) / 2**30
        del packed
    a_gib = {f"{name}_s_per_gib": statistics.median(values) / gib for name, values in seconds.items()}
    return {"gib": gib, "first_s": first_s, **a_gib, "same": float(same)}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began_s = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began_s


def report(layers: int, sizes: dict[str, Any], repeat: int, *, only_transfers: bool = False) -> dict[str, Any]:
    rows: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        model = policy(layers, sizes)
        for dtype in () if only_transfers else (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            rows[f"snapshot, {name}"] = snapshots(model, dtype, repeat)
        outgoing = OutgoingWeights(model, lambda _: contextlib.nullcontext(), copies=True)
        kept, _ = BucketPool(outgoing.shapes(torch.bfloat16), BUCKET_MIB, CPU).take()
        outgoing.copy(kept.named)
        del model, outgoing  # their memory
        for replicas in (1, 3):
            rows[f"gloo, replicas: {replicas}"] = transfers(kept.layout, kept.flat, replicas, repeat)
        rows["http, replicas: 1"] = fetches(kept.layout, kept.flat, repeat)
    return {"machine": machine(["torch", "xxhash"]), "threads": torch.get_num_threads(), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=27, help="27: 1.00 GiB in bfloat16")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only-transfers", action="store_true", help="leave the snapshots out")
    parser.add_argument("--out", type=Path, default=Path(".bench/weights.json"))
    asked = parser.parse_args()
    found = report(asked.layers, SIZES, asked.repeat, only_transfers=asked.only_transfers)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found["machine"]))
    for name, row in found["rows"].items():
        print(f"| {name} | " + " | ".join(f"{key} {value:.3g}" for key, value in row.items()) + " |")
    for replicas, bound in BOUNDS.items():
        ratio = found["rows"][f"gloo, replicas: {replicas}"]["whole / bare"]
        print(
            f"{replicas} replicas: {ratio:.2f} of a bare broadcast, at most {bound}: {'yes' if ratio <= bound else 'NO'}"
        )


if __name__ == "__main__":
    main()
