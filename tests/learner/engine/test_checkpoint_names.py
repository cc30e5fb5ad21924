"""What is sent and exported has the names, shapes and values that a checkpoint saved by transformers has."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from learner.engine.export import write_folder
from learner.engine.policy_model import PolicyModel
from services.config.model import ModelConfig
from services.models.folder import read_model_folder
from tests.architectures import CONFIGS, write_architecture


def settings_of(folder: Path) -> ModelConfig:
    return ModelConfig(path=str(folder), max_length=64, dtype="float32")


def checkpoint(model: PolicyModel) -> dict[str, torch.Tensor]:
    weights = [(name, parameter.detach()) for name, parameter in model.named_weights()]
    return dict(model.under_checkpoint_names([*weights, *model.named_buffers_kept()]))


@pytest.mark.parametrize("architecture", CONFIGS)
def test_names_and_values_are_those_of_the_source(tmp_path: Path, architecture: str) -> None:
    source, export = write_architecture(tmp_path / "source", architecture), tmp_path / "export"
    settings = settings_of(source)
    model = PolicyModel(settings, head_chunk_tokens=64, gradient_checkpointing=False)
    own, expected = checkpoint(model), load_file(source / "model.safetensors")
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())

    write_folder(settings, own.items(), export)
    read_model_folder("model.path", export)
    written = load_file(export / "model.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())
    assert json.loads((export / "config.json").read_text()) == json.loads((source / "config.json").read_text())


def test_experts_and_a_routers_bias_are_among_them(tmp_path: Path) -> None:
    """Otherwise the test above might compare two folders that both lack them."""
    model = PolicyModel(
        settings_of(write_architecture(tmp_path, "deepseek_v3")), head_chunk_tokens=64, gradient_checkpointing=False
    )
    names = checkpoint(model).keys()
    assert {"model.layers.1.mlp.experts.3.down_proj.weight", "model.layers.1.mlp.gate.e_score_correction_bias"} <= names
