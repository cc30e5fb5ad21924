"""The predictor next to the model on real DeepSpeed engines: trained, saved and the same at every ZeRO stage."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.engine.predictor import Predictor
from tests.learner import predictor_trial
from tests.learner.ranks import run_ranks
from tests.learner.tiny import write_tiny_model

FLOAT32 = [(0, 1, "float32"), (1, 2, "float32"), (2, 2, "float32"), (3, 2, "float32")]
EVERY = [*FLOAT32, (2, 1, "bfloat16")]


class Trials:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = write_tiny_model(folder / "model")
        self.done: dict[tuple[int, int, str], dict[str, Any]] = {}

    def run(self, stage: int, ranks: int, dtype: str) -> dict[str, Any]:
        if (stage, ranks, dtype) not in self.done:
            out = self.folder / f"{stage}-{ranks}-{dtype}"
            out.mkdir()
            run_ranks(predictor_trial.main, self.model, stage, dtype, out, ranks=ranks)
            self.done[stage, ranks, dtype] = torch.load(out / "saved.pt", weights_only=True)
        return self.done[stage, ranks, dtype]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(tmp_path_factory.mktemp("predictor"))


def change(saved: dict[str, Any]) -> Tensor:
    return torch.cat([(saved["after"][name] - w).double().flatten() for name, w in saved["initial"].items()])


@pytest.mark.parametrize(("stage", "ranks", "dtype"), EVERY)
def test_it_is_trained_and_saved_and_no_part_of_the_policy(trials: Trials, stage: int, ranks: int, dtype: str) -> None:
    seen = trials.run(stage, ranks, dtype)["seen"]
    assert len(seen) == (6 if stage < 3 else 4)
    if dtype == "bfloat16":
        seen.pop("packing changes nothing")  # to the precision asked for there
    assert all(seen.values()), seen


@pytest.mark.parametrize(("stage", "ranks", "dtype"), FLOAT32[1:])
def test_steps_are_the_same_at_every_stage(trials: Trials, stage: int, ranks: int, dtype: str) -> None:
    expected, saved = trials.run(0, 1, "float32"), trials.run(stage, ranks, dtype)
    assert change(expected).norm() > 1e-3
    assert float((change(saved) - change(expected)).norm() / change(expected).norm()) < 1e-5
    assert saved["losses"] == pytest.approx(expected["losses"], rel=1e-4)


def test_its_first_weights_are_the_same_everywhere_and_draw_nothing_from_the_run() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one = Predictor(8, 16, torch.float32)
    assert torch.equal(torch.rand(3), expected)
    two = Predictor(8, 16, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert one(torch.randn(5, 8)).shape == (5, 8)
    assert one(torch.zeros(0, 8)).shape == (0, 8)  # a filler
