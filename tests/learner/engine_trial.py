"""One real DeepSpeed engine per process, run on every rank by test_deepspeed_engine.py: does, measures, writes down."""

import contextlib
import importlib
import json
import math
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from learner.batch.micro_batch import MicroBatch
from learner.batch.packing import pack
from learner.batch.step_batch import StepBatch, assemble
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.engine.protocol import TokenStatistics
from learner.publish.kept_buckets import BucketPool
from learner.step.learner_step import learner_step
from learner.step.report import StepReport
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.errors import InputError
from services.weights import buckets
from services.wire.weights import Bucket
from tests.learner.reference_trial import reference_facts
from tests.learner.tiny import scored_group

# An epsilon far above every gradient makes AdamW's first steps linear in it: equal steps mean equal gradients.
OPTIMIZER = {
    "learning_rate": 1.0,
    "eps": 1.0,
    "max_grad_norm": 0.5,
    "max_grad_norm_ratio": 2.0,
    "weight_decay": 0.01,
}
PACKINGS = {
    "one row each, micro-batch 1": (1, 1),
    "one row each, micro-batch 8": (1, 8),
    "packed, micro-batch 2": (3, 2),
    "packed, micro-batch 8": (3, 8),
    "packed, all at once": (3, 1000),
}
PROBE = [1, 2, 3, 4, 5]
POPO_RATIO = {"type": "popo_ratio", "similarity": 0.5}


def settings(stage: int, rows: tuple[int, int] = (3, 2), **changes: object) -> LearnerConfig:
    """rows: longest sequences per row, rows per micro-batch."""
    return LearnerConfig.model_validate(
        {
            "steps": 10,
            "groups_per_step": 5,
            "zero_stage": stage,
            "optimizer": OPTIMIZER,
            "row_tokens": 11 * rows[0],
            "rows_per_micro_batch": rows[1],
            "head_chunk_tokens": 3,
            "stale_tokens": "mask",
            **changes,
        }
    )


def batch(config: LearnerConfig) -> StepBatch:
    groups = [scored_group(i, rewards=[1.0, 0.0, 0.25, 1.0][: 2 + i % 3]) for i in range(5)]
    return assemble(groups, 1, config)


def weights(engine: DeepSpeedEngine) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in engine.snapshot(torch.float32)}


def sent_as_saved(engine: DeepSpeedEngine) -> bool:
    """Whether the buckets of a snapshot have the digests that a plain copy of every parameter has, in either dtype."""
    gather: Any = importlib.import_module("deepspeed").zero.GatheredParameters
    wanted: dict[torch.dtype, list[Bucket]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        whole = []
        for name, parameter in engine.model.named_weights():
            gathered = gather([parameter]) if engine.is_sharded else contextlib.nullcontext()
            with gathered:
                whole.append((name, parameter.detach().to(dtype, copy=True)))
        saved = engine.model.under_checkpoint_names([*whole, *engine.model.named_buffers_kept()])
        wanted[dtype] = [bucket for bucket, _ in buckets.pack(saved, 1)]
    found = True
    for dtype, expected in wanted.items():
        kept, _ = BucketPool(engine.weight_shapes(dtype), 1, torch.device("cpu")).take()
        engine.copy_weights(kept.named if engine.rank == 0 else {})
        digests = [buckets.digest(flat) for flat in kept.flat]
        found = found and (engine.rank > 0 or list(buckets.sealed(kept.layout, digests)) == expected)
    return found


def reference_logp(engine: DeepSpeedEngine, policy: str | int) -> list[Tensor]:
    config = settings(1)
    rows = pack(batch(config), row_tokens=22, rows_per_micro_batch=2, rank=engine.rank, world_size=engine.world_size)
    return [s.logp for s in engine.token_statistics(rows, policy)]  # type: ignore[arg-type]


def two_steps(engine: DeepSpeedEngine, config: LearnerConfig) -> StepReport:
    """The second with a reference that is not the current policy."""
    learner_step(engine, batch(config), config, learning_rate=1.0)
    return learner_step(engine, batch(config), config, learning_rate=1.0)


def close(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.allclose(x, y, rtol=0, atol=1e-5) for x, y in zip(a, b, strict=True))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def finds_a_changed_bit(engine: DeepSpeedEngine, checkpoint: Path, spoiled: Path) -> bool:
    """Whether every rank finds damage in a copy of the checkpoint, into `spoiled`, with a bit changed in each of its files."""
    if engine.rank == 0:
        shutil.copytree(checkpoint, spoiled)
        for path in spoiled.rglob("*.pt"):  # every rank looks at some of them
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 8
            path.write_bytes(content)
    engine.barrier()
    found = engine.damage(spoiled)
    return engine.damage(checkpoint) is None and found is not None and ".pt is damaged: " in str(found)


def export_facts(engine: DeepSpeedEngine, folder: Path) -> dict[str, object]:
    """Export into the folder, and let transformers say what rank 0 says; nothing of the other ranks."""
    engine.export(folder)
    probe = engine.sequence_logps([PROBE])[0]
    if engine.rank > 0:
        return {}
    exported = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = exported(torch.tensor([PROBE])).logits[0, :-1].log_softmax(-1)
    expected = logits.gather(1, torch.tensor(PROBE[1:])[:, None])[:, 0]
    return {
        "export gap": float((torch.tensor(probe) - expected).abs().max()),
        "export is tied": exported.lm_head.weight is exported.model.embed_tokens.weight,
    }


def export_alone(model: Path, stage: int, out: Path) -> None:
    """The part of the trial that shared embeddings make a difference to: two steps, and the export."""
    config = settings(stage)
    engine = DeepSpeedEngine(ModelConfig(path=str(model), max_length=11, dtype="float32"), config, "cpu")
    two_steps(engine, config)
    found = export_facts(engine, out / "export")
    if engine.rank == 0:
        (out / "seen.json").write_text(json.dumps(found))
    engine.barrier()
    engine.close()


def main(model: Path, stage: int, dtype: Literal["float32", "bfloat16"], out: Path) -> None:  # noqa: PLR0915
    held = settings(
        stage,
        objective={"type": "opd"},
        teachers=[{"path": str(model), "dtype": "float32"}],
        reference={"type": "ema"} if dtype == "bfloat16" else {"type": "ratchet", "roll_back": 0.5},
    )
    engine = DeepSpeedEngine(ModelConfig(path=str(model), max_length=11, dtype=dtype), held, "cpu")
    seen: dict[str, object] = {"ranks": engine.world_size}

    def shards() -> list[Tensor]:
        return [engine.reference.shard_of(p).clone() for p in engine.model.parameters()]

    def reference() -> list[Tensor]:
        return [r.clone() for r in engine.reference.copies]

    start = out / "start"
    if engine.rank == 0:
        start.mkdir()
    engine.barrier()
    engine.save(start)
    initial = weights(engine)
    probe_before = engine.sequence_logps([PROBE])[0]
    taught = reference_logp(engine, 0)
    seen["a teacher of the same weights says the same"] = dtype == "bfloat16" or close(
        taught, reference_logp(engine, "current")
    )

    # The same two steps however they are cut up.
    after: dict[str, dict[str, Tensor]] = {}
    reports: dict[str, dict[str, object]] = {}
    for name, rows in PACKINGS.items():
        engine.load(start)
        seen["load restores the weights"] = same(initial, weights(engine)) and seen.get(
            "load restores the weights", True
        )
        report = two_steps(engine, settings(stage, rows))
        after[name] = weights(engine)
        reports[name] = {f: getattr(report, f) for f in ("loss", "grad_norm", "ess_ratio", "reference_gap", "skipped")}
    seen["reports"] = reports

    # Every kind of collective that an objective can ask for: statistics of the step, several optimizer steps, an
    # average, hidden states.
    for objective in ({"type": "acpo"}, {"type": "ppo_ewma"}, {"type": "opd", "outcome": 1.0}, POPO_RATIO):
        engine.load(start)
        engine.model.shows_hidden = objective["type"] == "popo_ratio"
        teachers = held.teachers if objective["type"] == "opd" else ()
        config = settings(stage, (3, 2), objective=objective, teachers=teachers, mini_batches=2)
        report = two_steps(engine, config)
        after[str(objective["type"])] = weights(engine)
        reports[str(objective["type"])] = {"loss": report.loss, "optimizer_steps": report.optimizer_steps}

    engine.model.shows_hidden = False

    # A moving average: all, nothing, or half of the way.
    engine.load(start)
    learner_step(engine, batch(settings(stage)), settings(stage), learning_rate=1.0)
    was, now = reference(), shards()
    engine.blend_reference(1.0)
    seen["blending nothing leaves the reference"] = all(map(torch.equal, reference(), was))
    engine.blend_reference(0.5)
    middle_of = [(a.double() + b.double()) / 2 for a, b in zip(was, now, strict=True)]
    seen["blending half is the middle"] = all(
        torch.allclose(r.double(), m, atol=1e-6) for r, m in zip(reference(), middle_of, strict=True)
    )
    engine.blend_reference(0.0)
    seen["blending all is the current policy"] = engine.reference_is_current and all(
        torch.equal(r.to(s.dtype), s) for r, s in zip(reference(), now, strict=True)
    )
    seen["a teacher stays what it was"] = close(reference_logp(engine, 0), taught)
    engine.load(start)
    two_steps(engine, settings(stage))

    # The reference: bit-equal at a ratchet, untouched by steps, carried by a checkpoint.
    before = [x.clone() for x in reference_logp(engine, "reference")]
    current = reference_logp(engine, "current")
    seen["reference differs after a step"] = not close(before, current)
    engine.ratchet_reference()
    seen["ratchet makes them equal"] = engine.reference_is_current
    engine.reference.is_current = False  # really score with the copy
    now = shards()
    copies = [r.to(s.dtype) for r, s in zip(reference(), now, strict=True)]  # an average is held in float32
    seen["ratchet is bit-equal"] = all(map(torch.equal, copies, now))
    seen["ratchet scores equal"] = close(reference_logp(engine, "reference"), current)
    engine.reference.is_current = True
    learner_step(engine, batch(settings(stage)), settings(stage), learning_rate=1.0)
    seen["a step leaves the reference"] = close(reference_logp(engine, "reference"), current)

    # Save, go on; load, go on: the same bits.
    middle = out / "middle"
    if engine.rank == 0:
        middle.mkdir()
    engine.barrier()
    engine.save(middle)
    learner_step(engine, batch(settings(stage)), settings(stage), learning_rate=1.0)
    uninterrupted = weights(engine)
    mean_norm = json.loads((middle / "engine.json").read_text())["mean_grad_norm"]
    seen["steps move the mean norm"] = mean_norm > 0.0 and engine.gradient_limit.mean not in (None, mean_norm)
    engine.load(start)
    engine.load(middle)
    seen["load restores the mean norm"] = engine.gradient_limit.mean == mean_norm
    seen["load restores the reference"] = close(reference_logp(engine, "reference"), current)
    learner_step(engine, batch(settings(stage)), settings(stage), learning_rate=1.0)
    seen["continued equals uninterrupted"] = same(uninterrupted, weights(engine))

    # The one before it, too.
    if dtype == "float32":
        engine.load(middle)
        engine.roll_back_reference()
    seen["a roll-back scores as before the ratchet"] = close(reference_logp(engine, "reference"), before)
    # A checkpoint brings its own decay, betas and clip; what the settings say today goes before them.
    given = engine.hyperparameters
    engine.hyperparameters = given.model_copy(
        update={"weight_decay": 0.25, "beta2": 0.5, "max_grad_norm_ratio": 0.0, "max_grad_norm": 0.125}
    )
    engine.load(middle)
    (group,) = engine.wrapped.optimizer.param_groups
    seen["settings of today hold after a load"] = (group["weight_decay"], group["betas"][1]) == (
        0.25,
        0.5,
    ) and engine.gradient_limit.now == 0.125
    engine.hyperparameters = given
    engine.load(middle)
    lacking = out / "lacking"
    if engine.rank == 0:
        lacking.mkdir()
        written = json.loads((middle / "engine.json").read_text())
        del written["reference_is_current"]
        (lacking / "engine.json").write_text(json.dumps(written))
    engine.barrier()
    try:
        engine.load(lacking)
    except InputError as error:
        seen["a checkpoint that lacks something is refused"] = "no engine.json: reference_is_current" in str(error)

    seen["a changed bit in a checkpoint is found"] = finds_a_changed_bit(engine, middle, out / "spoiled")

    # A gradient that is not finite on one rank alone: nothing moves anywhere, and what follows is as if it never was.
    engine.load(middle)
    here = weights(engine)

    def poison(micro_batch: MicroBatch, statistics: TokenStatistics) -> tuple[Tensor, None]:
        return statistics.logp.sum() * (math.inf if engine.rank == engine.world_size - 1 else 1.0), None

    rates = [group["lr"] for group in engine.wrapped.optimizer.param_groups]
    poisoned = pack(
        batch(settings(stage)), row_tokens=22, rows_per_micro_batch=2, rank=engine.rank, world_size=engine.world_size
    )
    engine.backward(poisoned, poison)
    taken = engine.step(1.0)
    seen["non-finite is not applied"] = not taken.applied and math.isnan(taken.grad_norm)
    seen["non-finite leaves the weights"] = same(here, weights(engine))
    learner_step(engine, batch(settings(stage)), settings(stage), learning_rate=1.0)
    seen["non-finite leaves the optimizer"] = same(uninterrupted, weights(engine))
    seen["learning rate is restored"] = rates == [group["lr"] for group in engine.wrapped.optimizer.param_groups]

    # Finite gradients whose squares overflow: not applied either, and the limit on gradients learns nothing from them.
    engine.load(middle)

    def overflow(micro_batch: MicroBatch, statistics: TokenStatistics) -> tuple[Tensor, None]:
        return statistics.logp.sum() * 1e25, None

    engine.backward(poisoned, overflow)
    taken = engine.step(1.0)
    seen["a norm that overflows is not applied"] = not taken.applied and math.isnan(taken.grad_norm)
    seen["a norm that overflows leaves the weights"] = same(here, weights(engine))
    seen["a norm that overflows leaves the limit"] = engine.gradient_limit.mean == mean_norm
    learner_step(engine, batch(settings(stage)), settings(stage), learning_rate=1.0)
    seen["a norm that overflows leaves the optimizer"] = same(uninterrupted, weights(engine))

    # A gradient longer than recent ones were is cut: with an epsilon of 1, the step is as long as what is left of it.
    moved = []
    for mean in (1e-9, 0.05, 0.1):
        engine.load(start)
        there = weights(engine)
        engine.gradient_limit.mean = mean
        taken_with = learner_step(engine, batch(settings(stage)), settings(stage), learning_rate=50.0)
        moved.append([weight - there[name] for name, weight in weights(engine).items()])
    decay, short, long = moved  # the first is what weight decay does
    cut = [math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(x, decay, strict=True))) for x in (short, long)]
    expected_cut = [limit * 50.0 * taken_with.lr_factor for limit in (0.1, 0.2)]  # far above bfloat16's rounding
    seen["a limit on the norm is kept to"] = taken_with.grad_norm > taken_with.grad_norm_limit == 0.2 and (
        engine.rank > 0 or all(0.98 < x / y < 1.01 for x, y in zip(cut, expected_cut, strict=True))
    )

    # One rank with another factor: every rank says so, and no weight moves.
    engine.load(middle)
    try:
        own = 1.0 if engine.rank == 0 else 1e-9
        learner_step(engine, batch(settings(stage)), settings(stage), learning_rate=1.0, full_ess_ratio=own)
        stopped = engine.world_size == 1
    except RuntimeError as error:
        stopped = "different rates" in str(error) and same(here, weights(engine))
        engine.discard_gradients()
    seen["ranks that would step differently are stopped"] = stopped

    seen["what is sent has the digests of a checkpoint in the same buckets"] = sent_as_saved(engine)
    seen["probe needs a step to change"] = probe_before != engine.sequence_logps([PROBE])[0]
    seen |= export_facts(engine, out / "export")
    engine.load(middle)
    seen |= reference_facts(
        engine,
        start,
        out / "references",
        lambda: learner_step(engine, batch(settings(stage)), settings(stage), learning_rate=1.0),
        lambda policy: reference_logp(engine, policy),
    )
    seen["bytes"] = engine.broadcast_bytes(b"from rank 0" if engine.rank == 0 else None).decode()
    seen["sum"] = engine.sum_over_ranks(torch.tensor([float(engine.rank + 1)])).tolist()
    if engine.rank == 0:
        (out / "seen.json").write_text(json.dumps(seen))
        torch.save({"initial": initial, "after": after}, out / "weights.pt")
    elif seen != {k: v for k, v in seen.items() if v is not False}:
        raise SystemExit(f"rank {engine.rank}: {seen}")
    engine.barrier()
    engine.close()
