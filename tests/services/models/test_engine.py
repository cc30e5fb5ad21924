"""Models that the engine would not serve are refused from their config, before it starts. vLLM is not imported."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoConfig,
    DeepseekV3Config,
    Gemma3Config,
    GPTNeoConfig,
    HeliumConfig,
    Lfm2Config,
    MiniCPM3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from services.errors import InputError
from services.models.engine import check_served, engine_architectures
from services.models.folder import read_model_folder
from tests.architectures import write_architecture

LATENT: dict[str, Any] = {"architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 512, "qk_rope_head_dim": 64}
LATENT |= {"scoring_func": "sigmoid", "topk_method": "noaux_tc"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Qwen2Config(), r'names no class \("architectures"\), by which vLLM chooses its code'),
        (GPTNeoConfig(architectures=["GPTNeoForCausalLM"]), "the installed vLLM has no GPTNeoForCausalLM"),
        (Qwen2Config(architectures=["NoSuchForCausalLM"]), "the installed vLLM has no NoSuchForCausalLM"),
        (
            Qwen3Config(architectures=["Qwen3ForCausalLM"], head_dim=16),
            "has attention heads of 16, .* takes 32, 64, 80",
        ),
        (
            Qwen2Config(architectures=["Qwen2ForCausalLM"], hidden_size=96, num_attention_heads=2),
            "has attention heads of 48",
        ),
        (
            Gemma3Config(architectures=["Gemma3ForConditionalGeneration"]),
            r"is a model of text and more \(gemma3: its config.json has a section for text\)",
        ),
        (Lfm2Config(architectures=["Lfm2ForCausalLM"]), "vLLM reads conv_dim in config.json, which is absent"),
        (DeepseekV3Config(**LATENT), "latent attention and its router, whose log-probs were seen to differ"),
        (
            DeepseekV3Config(**LATENT | {"scoring_func": "softmax"}),
            "vLLM reads scoring_func in config.json, which is 'softmax' there and has to be 'sigmoid'",
        ),
        (
            AutoConfig.for_model("deepseek_v2", architectures=["DeepseekV2ForCausalLM"], kv_lora_rank=8),
            r"has latent attention of 8 \+ 64 .* takes 512 \+ 64 alone",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PreTrainedConfig) else "",
)
def test_what_the_engine_does_not_serve_is_refused_with_its_reason(config: PreTrainedConfig, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^model\.path = m.*{reason}"):
        check_served("model.path", "m", config, "cpu")


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(architectures=["Qwen2ForCausalLM"], hidden_size=128, num_attention_heads=4),
        Qwen3Config(architectures=["Qwen3ForCausalLM"]),
        MiniCPM3Config(architectures=["MiniCPM3ForCausalLM"]),
        HeliumConfig(architectures=["HeliumForCausalLM"]),  # by transformers' own class
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_engine_serves_passes(config: PreTrainedConfig) -> None:
    check_served("model.path", "m", config, "cpu")


def test_layers_that_the_engine_computes_wrongly_on_a_cpu_are_refused_there_alone() -> None:
    config = AutoConfig.for_model("lfm2", architectures=["Lfm2ForCausalLM"], conv_dim=2560, block_dim=2560)
    check_served("model.path", "m", config, "cuda")
    with pytest.raises(
        InputError, match="vLLM does not compute it on a CPU as transformers does: it has short convolutions"
    ):
        check_served("model.path", "m", config, "cpu")


def test_head_sizes_are_those_of_the_cpu_alone() -> None:
    check_served("model.path", "m", Qwen3Config(architectures=["Qwen3ForCausalLM"], head_dim=16), "cuda")


def test_a_folder_is_judged_for_the_device_that_serves_it(tmp_path: Path) -> None:
    folder = write_architecture(tmp_path, "qwen2")
    read_model_folder("learner.teachers.0.path", folder)
    read_model_folder("model.path", folder, device="cuda")
    with pytest.raises(InputError, match="has attention heads of 8"):
        read_model_folder("model.path", folder, device="cpu")


def test_the_list_is_read_without_the_engine() -> None:
    assert "vllm" not in sys.modules or importlib.util.find_spec("vllm") is not None
    known = engine_architectures()
    assert known is not None
    assert len(known) > 200


@pytest.mark.parametrize("installed", ["nothing", "no registry", "another registry"])
def test_where_there_is_no_list_the_engine_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str
) -> None:
    spec = ModuleSpec("vllm", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if installed == "nothing" else spec)
    if installed == "another registry":
        registry = tmp_path / "model_executor/models/registry.py"
        registry.parent.mkdir(parents=True)
        registry.write_text('MODELS = {"Qwen2ForCausalLM": 1}')
    assert engine_architectures() is None
    check_served("model.path", "m", AutoConfig.for_model("qwen2", architectures=["Unheard"]), "cuda")
