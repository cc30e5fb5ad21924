"""Two gradient sums on real DeepSpeed engines: every ZeRO stage, one rank and two."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.engine.deepspeed_engine import DeepSpeedEngine
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.errors import InputError
from tests.learner import exact_trial
from tests.learner.ranks import run_ranks
from tests.learner.tiny import write_tiny_model

OTHERS = [(1, 2), (2, 2), (3, 2)]


class Trials:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = write_tiny_model(folder / "model")
        self.done: dict[tuple[int, int, bool], dict[str, Any]] = {}

    def run(self, stage: int, ranks: int, *, adapters: bool = False) -> dict[str, Any]:
        key = stage, ranks, adapters
        if key not in self.done:
            out = self.folder / f"{stage}-{ranks}-{adapters}"
            out.mkdir()
            run_ranks(exact_trial.main, self.model, stage, out, {"rank": 4} if adapters else None, ranks=ranks)
            self.done[key] = torch.load(out / "saved.pt", weights_only=True)
        return self.done[key]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(tmp_path_factory.mktemp("exact"))


def change(saved: dict[str, Any], what: str) -> Tensor:
    return torch.cat([(saved[what][name] - w).double().flatten() for name, w in saved["initial"].items()])


def gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_twice_less_once_is_the_plain_gradient(trials: Trials) -> None:
    saved = trials.run(0, 1)
    assert change(saved, "plain").norm() > 1e-2
    assert gap(change(saved, "two sums"), change(saved, "plain")) < 1e-5
    assert saved["rate is restored"]


@pytest.mark.parametrize(("stage", "ranks"), OTHERS)
def test_stages_and_ranks_do_not_change_sums_norms_or_steps(trials: Trials, stage: int, ranks: int) -> None:
    expected, saved = trials.run(0, 1), trials.run(stage, ranks)
    for what in ("two sums", "learner steps"):
        assert change(expected, what).norm() > 1e-2
        assert gap(change(saved, what), change(expected, what)) < 1e-5
    assert (expected["squared norms"] > 0).sum() > 10
    assert torch.allclose(saved["squared norms"], expected["squared norms"], rtol=1e-4)
    assert saved["norm"] == pytest.approx(expected["norm"], rel=1e-4)
    assert saved["report"] == pytest.approx(expected["report"], rel=1e-4, abs=1e-7)
    assert saved["rate is restored"]


def test_adapters_have_the_same_sums_norms_and_steps_on_sharded_ranks(trials: Trials) -> None:
    """To the rounding of weights that adapters are added to."""
    expected, saved = trials.run(0, 1, adapters=True), trials.run(3, 2, adapters=True)
    assert gap(change(expected, "two sums"), change(expected, "plain")) < 1e-4
    for what in ("two sums", "learner steps"):
        assert change(expected, what).norm() > 1e-2
        assert gap(change(saved, what), change(expected, what)) < 1e-4
    assert (expected["squared norms"] > 0).sum() > 10
    assert torch.allclose(saved["squared norms"], expected["squared norms"], rtol=1e-4)


def test_bfloat16_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    config = LearnerConfig(steps=1, groups_per_step=1, advantage={"baseline": "minimum_variance_exact"})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r'set model\.dtype = "float32"'):
        DeepSpeedEngine(ModelConfig(path=str(tmp_path), max_length=11, dtype="bfloat16"), config, "cpu")
