"""Real DeepSpeed engines, one and two ranks, every ZeRO stage: the same step, the same bits after a restart."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.learner import engine_trial
from tests.learner.engine_trial import PACKINGS
from tests.learner.ranks import run_ranks
from tests.learner.tiny import write_tiny_model

TRIALS = [(stage, ranks) for stage in (0, 1, 2, 3) for ranks in (1, 2)]
FACTS = [
    "load restores the weights",
    "reference differs after a step",
    "ratchet makes them equal",
    "ratchet is bit-equal",
    "ratchet scores equal",
    "a step leaves the reference",
    "load restores the reference",
    "continued equals uninterrupted",
    "non-finite is not applied",
    "non-finite leaves the weights",
    "non-finite leaves the optimizer",
    "learning rate is restored",
    "a norm that overflows is not applied",
    "a norm that overflows leaves the weights",
    "a norm that overflows leaves the limit",
    "a norm that overflows leaves the optimizer",
    "ranks that would step differently are stopped",
    "what is sent has the digests of a checkpoint in the same buckets",
    "probe needs a step to change",
    "blending nothing leaves the reference",
    "blending half is the middle",
    "blending all is the current policy",
    "a teacher of the same weights says the same",
    "a teacher stays what it was",
    "a roll-back scores as before the ratchet",
    "settings of today hold after a load",
    "steps move the mean norm",
    "load restores the mean norm",
    "a limit on the norm is kept to",
    "a checkpoint that lacks something is refused",
    "a changed bit in a checkpoint is found",
    *(
        f"{kept}: {fact}"
        for kept in ("default", "offload", "bfloat16")
        for fact in (
            "scores as the weights swapped in",
            "a roll-back is another reference, and steps leave it",
            "a roll-back scores as the weights before the swap",
            "a checkpoint has the reference and the one before",
        )
    ),
    "an offloaded ratchet scores the same bits",
    "an offloaded average scores the same bits",
]


@dataclass
class Trial:
    seen: dict[str, Any]
    initial: dict[str, Tensor]
    after: dict[str, dict[str, Tensor]]

    def change(self, packing: str) -> Tensor:
        return torch.cat([(self.after[packing][n] - w).double().flatten() for n, w in self.initial.items()])


class Trials:
    """Runs each trial once, when a test first asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[tuple[int, int, str], Trial] = {}
        self.models = {tied: write_tiny_model(folder / f"model-{tied}", tied=tied) for tied in (False, True)}

    def run(self, stage: int, ranks: int, *, dtype: str = "float32") -> Trial:
        key = (stage, ranks, dtype)
        if key not in self.done:
            out = self.folder / f"trial-{stage}-{ranks}-{dtype}"
            out.mkdir()
            run_ranks(engine_trial.main, self.models[False], stage, dtype, out, ranks=ranks)
            saved = torch.load(out / "weights.pt", weights_only=True)
            self.done[key] = Trial(json.loads((out / "seen.json").read_text()), **saved)
        return self.done[key]

    def exported(self, stage: int, ranks: int, *, tied: bool) -> dict[str, Any]:
        """What was seen of the export; where embeddings are shared, nothing else is looked at."""
        if not tied:
            return self.run(stage, ranks).seen
        out = self.folder / f"tied-{stage}-{ranks}"
        out.mkdir()
        run_ranks(engine_trial.export_alone, self.models[True], stage, out, ranks=ranks)
        found: dict[str, Any] = json.loads((out / "seen.json").read_text())
        return found


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(tmp_path_factory.mktemp("trials"))


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("stage", "ranks"), TRIALS)
def test_the_step_is_the_same_for_every_packing_stage_and_number_of_ranks(
    trials: Trials, stage: int, ranks: int
) -> None:
    expected = trials.run(0, 1)
    step = expected.change("one row each, micro-batch 1")
    assert step.norm() > 1e-2
    trial = trials.run(stage, ranks)
    for packing in PACKINGS:
        assert gap(trial.change(packing), step) < 1e-5, packing
        for name, value in expected.seen["reports"]["one row each, micro-batch 1"].items():
            close = value if value is None else pytest.approx(value, rel=1e-4, abs=1e-7)
            assert trial.seen["reports"][packing][name] == close, (packing, name)


@pytest.mark.parametrize(("stage", "ranks"), TRIALS)
@pytest.mark.parametrize("objective", ["acpo", "ppo_ewma", "opd", "popo_ratio"])
def test_two_batches_of_two_optimizer_steps_are_the_same_for_every_stage_and_number_of_ranks(
    trials: Trials, stage: int, ranks: int, objective: str
) -> None:
    expected, trial = trials.run(0, 1), trials.run(stage, ranks)
    assert expected.change(objective).norm() > 1e-2
    assert gap(trial.change(objective), expected.change(objective)) < 1e-5
    report = expected.seen["reports"][objective]
    assert trial.seen["reports"][objective] == pytest.approx(report, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("stage", "ranks"), TRIALS)
@pytest.mark.parametrize("fact", FACTS)
def test_fact(trials: Trials, stage: int, ranks: int, fact: str) -> None:
    assert trials.run(stage, ranks).seen[fact]


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize(
    "fact", [fact for fact in FACTS if "scores" not in fact and "leaves the reference" not in fact]
)
def test_fact_in_bfloat16_with_float32_masters(trials: Trials, stage: int, fact: str) -> None:
    assert trials.run(stage, 1, dtype="bfloat16").seen[fact]


@pytest.mark.parametrize(("stage", "ranks", "tied"), [(1, 1, False), (1, 1, True), (3, 2, False), (3, 2, True)])
def test_the_export_loads_in_transformers_and_says_the_same(trials: Trials, stage: int, ranks: int, tied: bool) -> None:
    seen = trials.exported(stage, ranks, tied=tied)
    assert seen["export gap"] < 1e-5
    assert seen["export is tied"] is tied


def test_ranks_talk(trials: Trials) -> None:
    seen = trials.run(1, 2).seen
    assert (seen["bytes"], seen["sum"], seen["ranks"]) == ("from rank 0", [3.0], 2)
