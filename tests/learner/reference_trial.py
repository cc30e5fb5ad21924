"""What engine_trial.py asks of a real engine's reference: swapped, taken back and resumed, however it is kept."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.engine.policy_model import trained_parameters
from learner.engine.reference_weights import ReferenceWeights
from services.config.reference import EmaReference, Reference, ReferenceConfig

RATCHETS: dict[str, Reference] = {
    "default": ReferenceConfig(roll_back=0.5),
    "offload": ReferenceConfig(roll_back=0.5, offload=True),
    "bfloat16": ReferenceConfig(roll_back=0.5, dtype="bfloat16"),
}
AVERAGES: dict[str, Reference] = {"default": EmaReference(), "offload": EmaReference(offload=True)}

Score = Callable[[str], list[Tensor]]
"""The log-probs of a policy."""


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(map(torch.equal, a, b))


def close(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.allclose(x, y, rtol=0, atol=1e-5) for x, y in zip(a, b, strict=True))


def with_rounded_weights(engine: DeepSpeedEngine, score: Score) -> list[Tensor]:
    """What the current policy would say if its weights were bfloat16."""
    holders = [engine.reference.holder_of(p) for p in trained_parameters(engine.model)]
    current = [holder.data for holder in holders]
    engine.reference.release()
    for holder in holders:
        holder.data = holder.data.bfloat16().to(holder.dtype)
    scored = score("current")
    engine.reference.release()
    for holder, data in zip(holders, current, strict=True):
        holder.data = data
    return scored


def reference_facts(
    engine: DeepSpeedEngine, start: Path, out: Path, step: Callable[[], object], score: Score
) -> dict[str, bool]:
    """start: a checkpoint; out: a folder that is not there yet. Leaves the engine with another reference than it had."""
    facts: dict[str, bool] = {}
    heard: dict[str, list[Tensor]] = {}
    for name, settings in RATCHETS.items():
        engine.load(start)
        engine.reference = ReferenceWeights(engine.model, settings, sharded=engine.is_sharded)
        step()
        expected = with_rounded_weights(engine, score) if name == "bfloat16" else score("current")
        engine.ratchet_reference()  # before it: the weights of `start`
        step()
        swapped = score("reference")
        folder = out / name
        if engine.rank == 0:
            folder.mkdir(parents=True)
        engine.barrier()
        engine.save(folder)
        engine.roll_back_reference()
        back = score("reference")
        step()
        unmoved = same(score("reference"), back)
        engine.load(folder)
        resumed = score("reference")
        engine.roll_back_reference()
        facts[f"{name}: scores as the weights swapped in"] = close(swapped, expected)
        facts[f"{name}: a roll-back is another reference, and steps leave it"] = unmoved and not close(back, swapped)
        facts[f"{name}: a checkpoint has the reference and the one before"] = same(resumed, swapped) and same(
            score("reference"), back
        )
        heard[name] = swapped + back
        engine.load(start)
        facts[f"{name}: a roll-back scores as the weights before the swap"] = close(
            back, with_rounded_weights(engine, score) if name == "bfloat16" else score("current")
        )
    facts["an offloaded ratchet scores the same bits"] = same(heard["offload"], heard["default"])

    averages = []
    for settings in AVERAGES.values():
        engine.load(start)
        engine.reference = ReferenceWeights(engine.model, settings, sharded=engine.is_sharded)
        for _ in range(2):
            step()
            engine.blend_reference(0.5)
        averages.append(score("reference"))
    facts["an offloaded average scores the same bits"] = same(*averages)
    return facts
