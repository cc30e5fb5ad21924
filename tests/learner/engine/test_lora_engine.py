"""Adapters on real DeepSpeed engines, one and two ranks, every ZeRO stage: the steps of plain torch, and what comes out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.learner import lora_trial
from tests.learner.engine_trial import PROBE
from tests.learner.ranks import run_ranks
from tests.learner.tiny import write_tiny_model

TRIALS = [(0, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
IN_BFLOAT16 = [(1, 1), (3, 1)]
EVERY = [(*trial, "float32") for trial in TRIALS] + [(*trial, "bfloat16") for trial in IN_BFLOAT16]
MOVING = [(1, 2, "float32"), (3, 2, "float32")]
"""Trials in which references are swapped, which takes as long as all the rest."""
FACTS = [
    "frozen weights are the same bits",
    "every factor has moved",
    "the reference is a copy of the factors alone",
    "a fixed reference is the model without adapters",
    "load brings the first factors back",
    "continued equals uninterrupted",
]


class Trials:
    """Runs each trial once, when a test first asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = write_tiny_model(folder / "model", hidden=64)
        self.done: dict[tuple[int, int, str], dict[str, Any]] = {}

    def run(self, stage: int, ranks: int, dtype: str = "float32") -> dict[str, Any]:
        key = (stage, ranks, dtype)
        if key not in self.done:
            out = self.out(*key)
            out.mkdir()
            run_ranks(lora_trial.main, self.model, stage, dtype, out, key in MOVING, ranks=ranks)
            self.done[key] = json.loads((out / "seen.json").read_text())
        return self.done[key]

    def out(self, stage: int, ranks: int, dtype: str) -> Path:
        return self.folder / f"trial-{stage}-{ranks}-{dtype}"


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(tmp_path_factory.mktemp("lora"))


@pytest.mark.parametrize(("stage", "ranks"), TRIALS)
def test_steps_are_those_of_plain_torch_on_the_same_factors(trials: Trials, stage: int, ranks: int) -> None:
    seen = trials.run(stage, ranks)
    assert seen["the probe has moved"] > 0.1
    assert seen["every factor was compared"]
    assert seen["factor gap"] < 2e-6
    assert seen["merged gap"] < 5e-6
    assert seen["log-prob gap"] < 2e-5


@pytest.mark.parametrize(("stage", "ranks", "dtype"), EVERY)
def test_weights_that_go_out_say_what_the_adapters_say(trials: Trials, stage: int, ranks: int, dtype: str) -> None:
    gap = trials.run(stage, ranks, dtype)["merged gap of log-probs"]
    assert gap < (2e-5 if dtype == "float32" else 0.1)


@pytest.mark.parametrize(("stage", "ranks", "dtype"), EVERY)
@pytest.mark.parametrize("fact", FACTS)
def test_fact(trials: Trials, stage: int, ranks: int, dtype: str, fact: str) -> None:
    assert trials.run(stage, ranks, dtype)[fact]


@pytest.mark.parametrize(("stage", "ranks", "dtype"), MOVING)
def test_references_are_swapped_taken_back_averaged_and_resumed(
    trials: Trials, stage: int, ranks: int, dtype: str
) -> None:
    assert trials.run(stage, ranks, dtype)["reference"] == []


@pytest.mark.parametrize(("stage", "ranks"), TRIALS)
def test_a_checkpoint_is_small_and_one_of_another_rank_is_refused(trials: Trials, stage: int, ranks: int) -> None:
    seen = trials.run(stage, ranks)
    assert seen["saved"] < 1.0
    assert "learner.lora.rank = 3, and the checkpoint" in seen["refused"]
    assert "was written with 4; set it back as it was" in seen["refused"]


@pytest.mark.parametrize(("stage", "ranks"), TRIALS[1:])
def test_learner_steps_are_the_same_for_every_stage_and_number_of_ranks(trials: Trials, stage: int, ranks: int) -> None:
    expected, seen = trials.run(0, 1)["learner steps"], trials.run(stage, ranks)["learner steps"]
    assert seen == pytest.approx(expected, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(("stage", "ranks"), [(0, 1), (3, 2)])
def test_peft_loads_the_adapters_beside_the_starting_model(trials: Trials, stage: int, ranks: int) -> None:
    seen = trials.run(stage, ranks)
    start = AutoModelForCausalLM.from_pretrained(trials.model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(start, trials.out(stage, ranks, "float32") / "export" / "adapter").eval()
    with torch.no_grad():
        logp = adapted(torch.tensor([PROBE])).logits[0, :-1].log_softmax(-1)
    assert logp.gather(1, torch.tensor(PROBE[1:])[:, None])[:, 0].tolist() == pytest.approx(seen["logp"], abs=2e-5)
