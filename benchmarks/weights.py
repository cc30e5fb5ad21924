"""What it costs to bring a version of the weights to a replica, on this machine's CPU; before and now, side by side.

    python -m benchmarks.weights [--layers 24] [--repeat 5] [--out .bench/weights.json]

A model with random weights in the shape of Qwen2.5-0.5B (--layers: of its 24). First what a snapshot costs the training thread:
as it was at 7f044fc (two fresh copies and the digests), and now (one copy into kept buckets), with the digests, which another
thread computes now. Then the broadcast over gloo to a receiver in another process, beside one of bare bytes. Seconds a GiB,
the median of --repeat times after one that is not counted; before and now take turns.
"""

import argparse
import contextlib
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from benchmarks import weights_before
from benchmarks.machine import machine
from learner.engine.outgoing import OutgoingWeights
from learner.engine.policy_model import PolicyModel
from learner.publish.kept_buckets import BucketPool
from rollout.weights.receiver import WeightReceiver
from services.clock import Deadline
from services.config.model import ModelConfig
from services.errors import WeightSyncError
from services.weights.buckets import digest, sealed
from services.weights.collective import form_collective
from services.weights.process_group import ProcessGroupChannel, RendezvousStore
from services.wire.weights import Gap, Rendezvous, WeightManifest

BUCKET_MIB = 64
SIZES: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
CPU = torch.device("cpu")
WAIT_S = 120.0
LONG = timedelta(seconds=WAIT_S)


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


def transfer(model: PolicyModel, dtype: torch.dtype, repeat: int) -> dict[str, float]:
    """Seconds a GiB of a broadcast to one receiver, until it has proved the bytes, and of a broadcast of the same bytes alone."""
    outgoing = OutgoingWeights(model, lambda _: contextlib.nullcontext(), copies=True)
    kept, _ = BucketPool(outgoing.shapes(dtype), BUCKET_MIB, CPU).take()
    outgoing.copy(kept.named)
    store = RendezvousStore("127.0.0.1")
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    other = multiprocessing.get_context("spawn").Process(target=_receive, args=(theirs,), daemon=True)
    other.start()
    channel = ProcessGroupChannel(store)
    meeting = _meeting(store.port, 1)
    manifest = WeightManifest(
        policy_version=0,
        pg_generation=1,
        buckets=sealed(kept.layout, [digest(flat) for flat in kept.flat]),
        probes=(),
        bound=Gap(0, 0, 0),
    )
    ours.send(meeting)
    channel.form(meeting, _soon())
    _said(ours)
    real: list[float] = []
    for _ in range(repeat + 1):
        ours.send(manifest)
        _said(ours)

        def send() -> None:
            channel.send(manifest, kept.flat, _soon())
            _said(ours)

        real.append(timed(send)[1])
    channel.close()
    bare = [_bare(ours, store, kept.flat, turn) for turn in range(2)]
    ours.send(None)
    other.join(WAIT_S)
    gib = sum(flat.numel() for flat in kept.flat) / 2**30
    return {
        "gib": gib,
        "first_s": real[0],
        "sent_s_per_gib": statistics.median(real[1:]) / gib,
        "bare_s_per_gib": min(bare) / gib,
    }


def _bare(pipe: Connection, store: RendezvousStore, flats: tuple[torch.Tensor, ...], turn: int) -> float:
    """Seconds of the broadcasts alone, without manifest, deadline and digests."""
    meeting = _meeting(store.port, 2 + turn)
    pipe.send((meeting, [flat.numel() for flat in flats]))
    group = form_collective(meeting, 0, PrefixStore(f"bare{turn}", store.tcp_store), LONG, CPU)
    _said(pipe)
    began_s = time.perf_counter()
    for flat in flats:
        group.broadcast(flat, LONG)
    seconds = time.perf_counter() - began_s
    _said(pipe)
    return seconds


def _meeting(port: int, generation: int) -> Rendezvous:
    return Rendezvous(
        pg_generation=generation, backend="gloo", host="127.0.0.1", port=port, size=2, first_ranks={}, timeout_s=WAIT_S
    )


def _receive(pipe: Connection) -> None:
    """The other process: a receiver as an engine's worker has it, then bare broadcasts."""
    torch.set_num_threads(1)
    receiver = WeightReceiver(CPU)
    while (asked := pipe.recv()) is not None:
        if isinstance(asked, Rendezvous):
            receiver.join(asked, 1)
        elif isinstance(asked, WeightManifest):
            receiver.stage(asked, WAIT_S)
            pipe.send("staged")
        else:
            meeting, sizes = asked
            store = PrefixStore(
                f"bare{meeting.pg_generation - 2}", TCPStore("127.0.0.1", meeting.port, wait_for_workers=False)
            )
            group = form_collective(meeting, 1, store, LONG, CPU)
            flats = [torch.zeros(size, dtype=torch.uint8) for size in sizes]
            pipe.send("met")
            for flat in flats:
                group.broadcast(flat, LONG)
            pipe.send("received")
            continue
        while receiver.progress().state == "busy":
            time.sleep(0.001)
        if receiver.progress().state != "ready":
            raise WeightSyncError(receiver.progress().fault)
        if isinstance(asked, WeightManifest):
            receiver.take(asked.policy_version)
            receiver.give_back()
        pipe.send("done")


def _said(pipe: Connection) -> None:
    if not pipe.poll(WAIT_S):
        raise WeightSyncError("the receiver says nothing")
    pipe.recv()


def _soon() -> Deadline:
    return Deadline.after(WAIT_S, "the benchmark")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began_s = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began_s


def report(layers: int, sizes: dict[str, Any], repeat: int) -> dict[str, Any]:
    rows: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        model = policy(layers, sizes)
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            rows[f"snapshot, {name}"] = snapshots(model, dtype, repeat)
        rows["transfer, bfloat16"] = transfer(model, torch.bfloat16, repeat)
    return {"machine": machine(["torch", "xxhash"]), "threads": torch.get_num_threads(), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(".bench/weights.json"))
    asked = parser.parse_args()
    found = report(asked.layers, SIZES, asked.repeat)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found["machine"]))
    for name, row in found["rows"].items():
        print(f"| {name} | " + " | ".join(f"{key} {value:.3g}" for key, value in row.items()) + " |")


if __name__ == "__main__":
    main()
