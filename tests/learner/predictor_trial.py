"""One real DeepSpeed engine per process that trains a predictor, run on every rank by test_predictor_engine.py."""

import json
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.engine.state_files import Saved
from learner.step.learner_step import learner_step
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.errors import InputError
from tests.learner.engine_trial import batch, settings, weights

POPO = {"type": "popo", "predictor_width": 24, "alpha": 2.0, "beta": 0.5, "length_normalized": True}


def config(stage: int, rows: tuple[int, int] = (3, 2)) -> LearnerConfig:
    return settings(stage, rows, objective=POPO, mini_batches=2)


def predictor(folder: Path) -> dict[str, Tensor]:
    """Its weights in a checkpoint."""
    saved = Saved(folder)
    found = {}
    for name, elements in json.loads((folder / "engine.json").read_text())["parameters"].items():
        if name.startswith("predictor."):
            found[name] = torch.empty(elements)
            saved.copy("weights", name, 0, found[name])
    return found


def main(model: Path, stage: int, dtype: Literal["float32", "bfloat16"], out: Path) -> None:
    def engine_of(learner: LearnerConfig) -> DeepSpeedEngine:
        return DeepSpeedEngine(ModelConfig(path=str(model), max_length=11, dtype=dtype), learner, "cpu")

    engine = engine_of(config(stage))

    def saved(name: str) -> Path:
        if engine.rank == 0:
            (out / name).mkdir()
        engine.barrier()
        engine.save(out / name)
        return out / name

    def two_steps(rows: tuple[int, int] = (3, 2)) -> list[float]:
        return [
            learner_step(engine, batch(config(stage, rows)), config(stage, rows), learning_rate=1.0).loss for _ in "12"
        ]

    seen: dict[str, object] = {}
    start = saved("start")
    initial = weights(engine)
    losses = two_steps()
    middle, after = saved("middle"), weights(engine)
    more, later = two_steps(), weights(engine)
    engine.load(middle)
    seen["continued equals uninterrupted"] = two_steps() == more and all(
        torch.equal(later[name], weight) for name, weight in weights(engine).items()
    )
    engine.load(start)
    seen["packing changes nothing"] = all(
        abs(a - b) < 1e-4 * abs(a) for a, b in zip(losses, two_steps((1, 1)), strict=True)
    )
    names = [name for name, _ in engine.snapshot(torch.float32)]
    seen["a snapshot is the policy alone"] = not any("predictor" in name for name in names)
    if engine.rank == 0 and stage < 3:
        before, then = predictor(start), predictor(middle)
        seen["the predictor is in the checkpoint"] = len(before) == 6
        seen["the predictor learns"] = all(not torch.equal(before[name], then[name]) for name in before)
    written = json.loads((start / "engine.json").read_text())
    if engine.rank == 0:
        (out / "other").mkdir()
        (out / "other" / "engine.json").write_text(json.dumps({**written, "predictor_width": 0}))
    engine.barrier()
    try:
        engine.load(out / "other")
    except InputError as error:
        seen["a checkpoint without one is refused"] = (
            "predictor_width = 0, this learner has predictor_width = 24" in str(error)
        )
    if engine.rank == 0:
        torch.save({"initial": initial, "after": after, "losses": losses, "seen": seen}, out / "saved.pt")
    engine.barrier()
    engine.close()
