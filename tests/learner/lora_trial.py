"""One real engine per process that trains adapters, run on every rank by test_lora_engine.py: does, measures, writes down."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from learner.batch.micro_batch import MicroBatch
from learner.batch.packing import pack
from learner.engine.deepspeed_engine import DeepSpeedEngine
from learner.engine.policy_model import PolicyModel, inputs, probe_logps, probes, trained_parameters
from learner.engine.protocol import TokenStatistics
from learner.step.learner_step import learner_step
from services.config.lora import LoraConfig
from services.config.model import ModelConfig
from services.errors import InputError
from tests.learner.engine_trial import PROBE, batch, reference_logp, same, settings, weights
from tests.learner.reference_trial import reference_facts

LORA = LoraConfig(rank=3, alpha=6, targets=("q_proj", "v_proj", "o_proj", "down_proj"))
SEED = 7
STEPS = 4
RATE = 0.05
OPTIMIZER = {"eps": 1e-2, "max_grad_norm": 1e9, "max_grad_norm_ratio": 0.0, "weight_decay": 0.1}
"""No gradient is cut, and the epsilon is far above rounding, so that equal gradients give equal steps."""

Loss = Callable[[MicroBatch, TokenStatistics], tuple[Tensor, None]]


def loss(micro_batch: MicroBatch, statistics: TokenStatistics) -> tuple[Tensor, None]:
    """A fixed coefficient for each token of the mini-batch."""
    return (statistics.logp * torch.sin(micro_batch.token_index.float())).sum() / 10, None


class Explicit(nn.Module):
    """A linear layer whose whole weight is computed from its parts, in the open, each time."""

    def __init__(self, base: nn.Linear, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.weight = base.weight
        self.bias = base.bias
        self.scale = scale
        self.a = nn.Parameter(a.detach().clone())
        self.b = nn.Parameter(b.detach().clone())

    def whole(self) -> Tensor:
        return self.weight + self.scale * (self.b @ self.a)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.whole(), self.bias)


def in_the_open(model: ModelConfig) -> tuple[PolicyModel, dict[str, Explicit]]:
    """The same model with the same first factors, by plain torch; and its adapted layers by name."""
    drawn = PolicyModel(model, head_chunk_tokens=3, gradient_checkpointing=False)
    drawn.adapt(LORA, SEED)
    plain = PolicyModel(model, head_chunk_tokens=3, gradient_checkpointing=False).requires_grad_(False)
    layers: dict[str, Explicit] = {}
    for name, module in list(plain.causal_lm.named_modules()):
        if name.rpartition(".")[2] in LORA.targets:
            a, b = drawn.factors(f"{name}.weight")
            layers[name] = Explicit(module, a, b, LORA.alpha / LORA.rank)
            parent, _, last = name.rpartition(".")
            setattr(plain.causal_lm.get_submodule(parent), last, layers[name])
    return plain, layers


def train_in_the_open(plain: PolicyModel, micro_batches: list[MicroBatch]) -> None:
    optimizer = torch.optim.AdamW(
        trained_parameters(plain),
        lr=RATE,
        betas=(0.9, 0.999),
        eps=OPTIMIZER["eps"],
        weight_decay=OPTIMIZER["weight_decay"],
    )
    for _ in range(STEPS):
        for micro_batch in micro_batches:
            statistics = TokenStatistics(*plain(*inputs(micro_batch, torch.device("cpu"))))
            loss(micro_batch, statistics)[0].backward()
        optimizer.step()
        optimizer.zero_grad()


def whole_parameters(engine: DeepSpeedEngine) -> dict[str, Tensor]:
    """Copies of the frozen weights and the factors, each as it is, on every rank."""
    import deepspeed  # type: ignore[import-untyped]

    adapters = engine.model.adapters
    assert adapters is not None
    named: list[tuple[str, Any]] = [*adapters.named_weights(), *adapters.named_factors()]
    with deepspeed.zero.GatheredParameters([p for _, p in named]):
        return {name: parameter.detach().clone() for name, parameter in named}


def main(model: Path, stage: int, dtype: Literal["float32", "bfloat16"], out: Path, moves_references: bool) -> None:  # noqa: PLR0915
    config = settings(stage, optimizer=OPTIMIZER, lora=LORA.model_dump(), reference={"type": "fixed"})
    of_model = ModelConfig(path=str(model), max_length=11, dtype=dtype)
    engine = DeepSpeedEngine(of_model, config, "cpu", seed=SEED)
    seen: dict[str, Any] = {}
    micro_batches = [
        pack(batch(config), row_tokens=22, rows_per_micro_batch=2, rank=rank, world_size=engine.world_size)
        for rank in range(engine.world_size)
    ]

    def step() -> None:
        engine.backward(micro_batches[engine.rank], loss)
        assert engine.step(RATE).applied

    def save(name: str) -> Path:
        if engine.rank == 0:
            (out / name).mkdir()
        engine.barrier()
        engine.save(out / name)
        return out / name

    start = save("start")
    first, on_disk = whole_parameters(engine), engine.sequence_logps([PROBE])[0]
    factors = len([name for name in first if "lora_" in name])
    at_start = torch.cat(reference_logp(engine, "current"))
    for _ in range(STEPS):
        step()
    trained = whole_parameters(engine)
    seen["frozen weights are the same bits"] = all(
        torch.equal(first[name], tensor) for name, tensor in trained.items() if "lora_" not in name
    )
    seen["every factor has moved"] = not any(
        torch.equal(first[name], trained[name]) for name in trained if "lora_" in name
    )
    seen["the reference is a copy of the factors alone"] = len(engine.reference.copies) == factors
    seen["a fixed reference is the model without adapters"] = torch.equal(
        torch.cat(reference_logp(engine, "reference")), at_start
    )
    seen["the probe has moved"] = max(
        abs(a - b) for a, b in zip(on_disk, engine.sequence_logps([PROBE])[0], strict=True)
    )
    logp, merged = engine.sequence_logps([PROBE])[0], weights(engine)
    engine.export(out / "export")

    # Save, go on; load, go on: the same bits.
    middle = save("middle")
    step()
    uninterrupted = whole_parameters(engine)
    engine.load(start)
    seen["load brings the first factors back"] = same(whole_parameters(engine), first)
    engine.load(middle)
    step()
    seen["continued equals uninterrupted"] = same(whole_parameters(engine), uninterrupted)
    if moves_references:
        facts = reference_facts(engine, start, out / "references", step, lambda p: reference_logp(engine, p))
        seen["reference"] = [fact for fact, holds in facts.items() if not holds]
    seen["refused"] = refused(engine, out, middle)

    # Whole learner steps, as in a run.
    engine.load(start)
    for _ in range(2):
        report = learner_step(engine, batch(config), config, learning_rate=RATE)
    seen["learner steps"] = {"loss": report.loss, "grad_norm": report.grad_norm}

    if engine.rank == 0:
        plain, layers = in_the_open(of_model)
        if dtype == "float32":
            train_in_the_open(plain, [m for own in micro_batches for m in own])
            wholes = {f"{name}.weight": layer.whole().detach() for name, layer in layers.items()}
            in_files = {
                f"base_model.model.{name}.lora_{side.upper()}.weight": getattr(layer, side).detach()
                for name, layer in layers.items()
                for side in "ab"
            }
            seen["factor gap"] = max(float((trained[name] - factor).abs().max()) for name, factor in in_files.items())
            seen["every factor was compared"] = len(in_files) == factors
            seen["merged gap"] = max(float((merged[name] - whole).abs().max()) for name, whole in wholes.items())
            seen["log-prob gap"] = gap(scored(plain), logp)
        seen["merged gap of log-probs"] = gap(scored(exported(of_model, out / "export")), logp)
        bytes_saved = sum(file.stat().st_size for file in middle.rglob("*") if file.is_file())
        seen["saved"] = bytes_saved / (model / "model.safetensors").stat().st_size
        (out / "seen.json").write_text(json.dumps(seen | {"logp": logp}))
    engine.barrier()
    engine.close()


def refused(engine: DeepSpeedEngine, out: Path, checkpoint: Path) -> str:
    """What is said of a checkpoint of another rank."""
    other = out / "other"
    if engine.rank == 0:
        other.mkdir()
        written = json.loads((checkpoint / "engine.json").read_text())
        written["lora"]["rank"] = 4
        (other / "engine.json").write_text(json.dumps(written))
    engine.barrier()
    try:
        engine.load(other)
    except InputError as error:
        return str(error)
    return ""


def exported(model: ModelConfig, folder: Path) -> PolicyModel:
    return PolicyModel(
        model.model_copy(update={"path": str(folder)}), head_chunk_tokens=3, gradient_checkpointing=False
    )


@torch.no_grad()
def scored(policy: PolicyModel) -> list[float]:
    (batch_of_probe,) = [probes([PROBE], packed=True)]
    return probe_logps([PROBE], policy(*inputs(batch_of_probe, torch.device("cpu")))[0])[0]


def gap(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))
