"""Real DeepSpeed engines, one after the other in each process, that go on from checkpoints of other stages and numbers of ranks.

Run on every rank by test_resume_elsewhere.py: does, measures, writes down.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.step.learner_step import learner_step
from learner.step.report import StepReport
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from tests.learner.engine_trial import OPTIMIZER, batch, settings, weights

RATE = 0.02
COMPARED = ("loss", "grad_norm", "ess_ratio", "reference_gap", "entropy")


def step(engine: DeepSpeedEngine, config: LearnerConfig) -> StepReport:
    return learner_step(engine, batch(config), config, learning_rate=RATE)


def gap(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The Euclidean length of the difference; 0 on the ranks that have no weights."""
    return math.sqrt(sum(float((a[name] - b[name]).double().square().sum()) for name in a))


def go_on(engine: DeepSpeedEngine, config: LearnerConfig, origin: Path) -> dict[str, Any]:
    """What comes of the checkpoint `origin`, and of the step after it."""
    engine.load(origin / "checkpoint")
    expected = torch.load(origin / "done.pt", weights_only=True)
    loaded = gap(weights(engine), expected["loaded"]) if engine.rank == 0 else (weights(engine), 0.0)[1]
    report = step(engine, config)
    after = weights(engine)
    reports = {name: getattr(report, name) for name in COMPARED}
    found = {"loaded": loaded, "reports": reports, "expected": expected["reports"]}
    if engine.rank == 0:
        found["stepped"] = gap(after, expected["stepped"])
        found["moved"] = gap(after, expected["loaded"])
    return found


def write_as_before(engine: DeepSpeedEngine, folder: Path) -> None:
    """A checkpoint as ratchet 0.1.0 wrote it."""
    if engine.rank == 0:
        (folder / "engine").mkdir(parents=True)
    engine.barrier()
    engine.wrapped.save_checkpoint(str(folder), tag="engine", save_latest=False, exclude_frozen_parameters=True)
    if engine.is_sharded or engine.rank == 0:
        torch.save(engine.reference.copies, folder / f"reference_rank_{engine.rank}.pt")
    if engine.rank == 0:
        description = {
            "ranks": engine.world_size,
            "zero_stage": engine.wrapped.zero_optimization_stage(),
            "dtype": "bfloat16" if engine.wrapped.bfloat16_enabled() else "float32",
            "lora": None,
            "reference_is_current": engine.reference_is_current,
            "mean_grad_norm": engine.gradient_limit.mean,
        }
        (folder / "engine.json").write_text(json.dumps(description))
    engine.barrier()


def main(model: Path, out: Path, stages: list[int], dtype: Literal["float32", "bfloat16"]) -> None:
    """An engine for each stage: it writes a checkpoint after two steps, and goes on from every other that is there by then."""
    seen: dict[str, Any] = {}
    for stage in stages:
        # An epsilon that lets both of Adam's averages count, and does not make a step of noise.
        config = settings(
            stage,
            optimizer={**OPTIMIZER, "eps": 1e-3},
            reference={"type": "ratchet", "roll_back": 0.5, "every_steps": 50},
        )
        engine = DeepSpeedEngine(ModelConfig(path=str(model), max_length=11, dtype=dtype), config, "cpu")
        others = sorted(path.parent for path in out.glob("*/done.pt"))
        own = out / f"stage {stage}, {engine.world_size} ranks"
        if not own.exists():
            engine.barrier()
            if engine.rank == 0:
                (own / "checkpoint").mkdir(parents=True)
            engine.barrier()
            step(engine, config)
            engine.ratchet_reference()
            step(engine, config)
            engine.save(own / "checkpoint", in_background=stage % 2 == 1)
            loaded = weights(engine)
            report = step(engine, config)  # while a thread may still write
            stepped = weights(engine)
            assert engine.is_saved(wait=True)
            engine.load(own / "checkpoint")
            write_as_before(engine, own / "as before" / "checkpoint")
            if engine.rank == 0:
                reports = {name: getattr(report, name) for name in COMPARED}
                torch.save({"loaded": loaded, "stepped": stepped, "reports": reports}, own / "done.pt")
                torch.save({"loaded": loaded, "stepped": stepped, "reports": reports}, own / "as before" / "done.pt")
            engine.barrier()
            seen[f"{own.name}, as before -> {own.name}"] = go_on(engine, config, own / "as before")
            others.append(own)
        for origin in others:
            seen[f"{origin.name} -> {own.name}"] = go_on(engine, config, origin)
    if engine.rank == 0:
        (out / f"seen-{len(list(out.glob('seen-*')))}.json").write_text(json.dumps(seen))
    engine.barrier()
    engine.close()
