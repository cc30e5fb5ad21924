"""The engine and the copy of the weights beside it share what the replica may take of a GPU."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rollout.vllm.memory import engine_fraction
from services.config.load import load
from services.config.run import RunConfig
from services.errors import InputError

ROOT = Path(__file__).parents[3]
MIB = 2**20


def run(folder: Path, *overrides: str) -> RunConfig:
    """A model of 8 MiB in float32."""
    save_file({"weight": torch.zeros(2 * MIB)}, folder / "model.safetensors")
    return load(ROOT / "examples/addition/addition.toml", [f"model.path={folder}", "device=cuda", *overrides])


OFF = "rollout.prepare_weights=false"


def test_over_nccl_the_copy_is_taken_from_the_engines_share_and_over_gloo_it_is_not(tmp_path: Path) -> None:
    assert engine_fraction(run(tmp_path, "weights.type=nccl", OFF), 0.8, 100 * MIB) == pytest.approx(0.72)
    assert engine_fraction(run(tmp_path, "weights.type=gloo", OFF), 0.8, 100 * MIB) == pytest.approx(0.8)
    half = run(tmp_path, "weights.type=nccl", "model.dtype=bfloat16", OFF)
    assert engine_fraction(half, 0.8, 100 * MIB) == pytest.approx(0.76)


def test_a_second_model_is_taken_from_the_engines_share_over_either_and_is_divided_as_the_first(tmp_path: Path) -> None:
    assert engine_fraction(run(tmp_path, "weights.type=nccl"), 0.8, 100 * MIB) == pytest.approx(0.64)
    assert engine_fraction(run(tmp_path, "weights.type=gloo"), 0.8, 100 * MIB) == pytest.approx(0.72)
    four = run(tmp_path, "weights.type=gloo", "rollout.tensor_parallel=4")
    assert engine_fraction(four, 0.8, 100 * MIB) == pytest.approx(0.78)


def test_what_does_not_fit_is_refused_with_the_setting_before_the_engine_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'rollout.gpu_memory_fraction = 0.15 of .* the next version.*"gloo"'):
        engine_fraction(run(tmp_path, "weights.type=nccl", OFF), 0.15, 100 * MIB)
    with pytest.raises(InputError, match=r"the second model that it is prepared in.*rollout.prepare_weights = false"):
        engine_fraction(run(tmp_path, "weights.type=gloo"), 0.15, 100 * MIB)
    assert engine_fraction(run(tmp_path, "weights.type=gloo", OFF), 0.15, 100 * MIB) == pytest.approx(0.15)
    four = run(tmp_path, "weights.type=nccl", "rollout.tensor_parallel=4")
    assert engine_fraction(four, 0.15, 100 * MIB) == pytest.approx(0.05)


def test_a_name_on_the_hub_is_said_to_be_of_unknown_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    named = run(tmp_path, "weights.type=nccl")
    named = named.model_copy(update={"model": named.model.model_copy(update={"path": "org/name"})})
    assert engine_fraction(named, 0.8, 100 * MIB) == 0.8
    assert "org/name is not known before vLLM has loaded it" in caplog.text
