"""One real DeepSpeed engine per process that adds up two gradient sums, run on every rank by test_exact_engine.py."""

from pathlib import Path

import torch
from torch import Tensor

from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.step.exact import squared_norm
from learner.step.learner_step import learner_step
from learner.step.loss import Advantages, LossRecord, StepLoss, StepObjective
from learner.step.optimizer_step import OptimizerStep
from services.config.model import ModelConfig
from tests.learner.engine_trial import batch, settings, weights


class TwiceLessOnce:
    """A sum of gradients that is the plain one, by way of two; and the squared norm of each sequence's gradient."""

    def __init__(self, sequences: int) -> None:
        self.twice: list[Tensor] = []
        self.once: list[Tensor] = []
        self.squared_norms = torch.zeros(sequences, dtype=torch.float64)

    def add(self, record: LossRecord, gradients: list[Tensor], scale: float) -> None:
        if not self.twice:
            self.twice = [torch.zeros_like(g) for g in gradients]
            self.once = [torch.zeros_like(g) for g in gradients]
        (i,) = record.places.sequence_index.tolist()
        self.squared_norms[i] = squared_norm(gradients) / scale**2
        torch._foreach_add_(self.twice, gradients, alpha=2.0)
        torch._foreach_add_(self.once, gradients)

    def write(self, gradients: list[Tensor]) -> None:
        if self.twice:
            torch._foreach_copy_(gradients, self.twice)
            torch._foreach_sub_(gradients, self.once)


def main(model: Path, stage: int, out: Path, lora: dict[str, object] | None = None) -> None:
    config = settings(stage, advantage={"baseline": "minimum_variance_exact"}, mini_batches=2, lora=lora)
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
    micro_batches = step.packing.micro_batches
    given = Advantages(torch.linspace(-1, 1, len(whole)))
    objective = StepObjective(step.inputs, step.score(weights_will_move=False), config)
    loss = StepLoss(objective, lambda places, _: given.at(places))
    if stage == 0:
        engine.backward(micro_batches, loss)
        engine.step(1.0)
        saved["plain"] = weights(engine)
        engine.load(start)
    total = TwiceLessOnce(len(whole))
    engine.backward_one_by_one(micro_batches, loss, total)
    saved["norm"] = engine.step(1.0).grad_norm
    saved["two sums"] = weights(engine)
    saved["squared norms"] = engine.sum_over_ranks(total.squared_norms)

    # The rate is put back after a step that raises.
    def fail() -> None:
        raise RuntimeError("the step failed")

    before, own = [group["lr"] for group in engine.wrapped.optimizer.param_groups], engine.wrapped.step
    engine.wrapped.step = fail
    try:
        engine.step(0.25)
    except RuntimeError:
        saved["rate is restored"] = before == [group["lr"] for group in engine.wrapped.optimizer.param_groups]
    engine.wrapped.step = own

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
