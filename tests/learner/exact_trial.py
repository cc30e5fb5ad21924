"""One real DeepSpeed engine per process that adds up two gradient sums, run on every rank by test_exact_engine.py."""

from pathlib import Path

import torch

from learner.batch.packing import MicroBatch
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.engine.protocol import Share
from learner.step.learner_step import learner_step
from learner.step.optimizer_step import OptimizerStep
from services.config.model import ModelConfig
from tests.learner.engine_trial import batch, settings, weights


def main(model: Path, stage: int, out: Path) -> None:
    config = settings(stage, advantage={"baseline": "minimum_variance_exact"}, mini_batches=2)
    engine = DeepSpeedEngine(ModelConfig(path=str(model), max_length=11, dtype="float32"), config, "cpu")
    start = out / "start"
    if engine.rank == 0:
        start.mkdir()
    engine.barrier()
    engine.save(start)
    saved: dict[str, object] = {"initial": weights(engine)}

    # Twice the gradient less once the gradient is the gradient; where reductions are not put off there is a plain one.
    whole = batch(config)
    step = OptimizerStep(engine, whole, config)
    step.advantage = torch.linspace(-1, 1, len(whole))
    if stage == 0:
        engine.backward(step.micro_batches, step.loss)
        engine.step(1.0)
        saved["plain"] = weights(engine)
        engine.load(start)
    norms: list[float] = []

    def share(micro_batch: MicroBatch, squared_norm: float) -> Share:
        norms.append(squared_norm)
        return Share(2.0, 1.0, 1.0)

    engine.backward_in_two_sums(step.micro_batches, step.loss, share)
    saved["norm"] = engine.step(1.0).grad_norm
    saved["two sums"] = weights(engine)
    squared = torch.zeros(len(whole), dtype=torch.float64)
    squared[[i for m in step.micro_batches for i in m.sequence_index.tolist()]] = torch.tensor(norms).double()
    saved["squared norms"] = engine.sum_over_ranks(squared)

    # The rate is put back after a step that raises.
    def fail() -> None:
        raise RuntimeError("the step failed")

    before, own = [group["lr"] for group in engine._engine.optimizer.param_groups], engine._engine.step
    engine._engine.step = fail
    try:
        engine.step(0.25)
    except RuntimeError:
        saved["rate is restored"] = before == [group["lr"] for group in engine._engine.optimizer.param_groups]
    engine._engine.step = own

    # Whole learner steps, the second with a reference behind.
    engine.load(start)
    for _ in range(2):
        report = learner_step(engine, whole, config, learning_rate=1.0)
    saved["learner steps"] = weights(engine)
    saved["report"] = {"loss": report.loss, "shift": report.mean_baseline_shift, "taken": report.optimizer_steps}
    if engine.rank == 0:
        torch.save(saved, out / "saved.pt")
    engine.barrier()
    engine.close()
