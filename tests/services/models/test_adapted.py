"""Which layers of which models get factors, and what is said of those that cannot."""

from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from services.config.lora import LoraConfig
from services.errors import InputError
from services.models.adapted import (
    adapted_layers,
    check_same_adapters,
    description,
    linear_layers,
    trainable_parameters,
)
from tests.architectures import CONFIGS, SIZES


def built(architecture: str) -> Any:
    import torch

    config, settings = CONFIGS[architecture]
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config(**settings))


def adapted(model: Any, **settings: object) -> list[str]:
    return adapted_layers("model.path", "m", linear_layers(model), LoraConfig.model_validate(settings))


@pytest.mark.parametrize("architecture", ["qwen2", "qwen2_tied", "llama"])
def test_every_linear_layer_but_the_head_is_adapted(architecture: str) -> None:
    last = {name.rpartition(".")[2] for name in adapted(built(architecture))}
    assert last == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_named_layers_are_those_of_all_blocks() -> None:
    assert adapted(built("qwen2"), targets=["v_proj"]) == [
        "model.layers.0.self_attn.v_proj",
        "model.layers.1.self_attn.v_proj",
    ]


def test_fused_experts_and_routers_are_left_alone() -> None:
    last = {name.rpartition(".")[2] for name in adapted(built("qwen3_moe"))}
    assert last == {"q_proj", "k_proj", "v_proj", "o_proj"}


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "qproj", "norm"])
def test_a_target_that_is_no_such_layer_is_refused_with_those_that_are(target: str) -> None:
    with pytest.raises(
        InputError, match=rf'learner\.lora\.targets: "{target}" is not a layer of .*down_proj, gate_proj, k_proj'
    ):
        adapted(built("qwen2"), targets=["q_proj", target])


def test_a_rank_that_no_layer_has_is_refused() -> None:
    assert adapted(built("qwen2"), rank=32)
    with pytest.raises(InputError, match=r"learner\.lora\.rank = 33 is above the rank 32"):
        adapted(built("qwen2"), rank=33)


def test_the_trained_numbers_are_all_or_those_of_the_factors() -> None:
    layers = linear_layers(built("qwen2"))
    assert trainable_parameters(None, 1000, layers, path="m") == 1000
    lora = LoraConfig(rank=2, targets=("q_proj", "down_proj"))
    hidden, wide, blocks = SIZES["hidden_size"], SIZES["intermediate_size"], SIZES["num_hidden_layers"]
    assert trainable_parameters(lora, 1000, layers, path="m") == blocks * 2 * (hidden + hidden + hidden + wide)


@pytest.mark.parametrize(
    ("written", "now", "said"),
    [
        (
            LoraConfig(),
            None,
            r"by a run that trains adapters of rank 16, and this one trains every weight; set \[learner\.lora\]",
        ),
        (None, LoraConfig(), r"trains every weight, and this one trains adapters of rank 16"),
        (LoraConfig(alpha=8), LoraConfig(), r"learner\.lora\.alpha = 32, and the checkpoint step-1 was written with 8"),
        (
            LoraConfig(),
            LoraConfig(targets=("q_proj",)),
            r"learner\.lora\.targets = \['q_proj'\], and .* with all-linear",
        ),
    ],
)
def test_other_adapters_than_a_checkpoint_has_are_refused(
    written: LoraConfig | None, now: LoraConfig | None, said: str
) -> None:
    check_same_adapters("step-1", description(written), written)
    with pytest.raises(InputError, match=said):
        check_same_adapters("step-1", description(written), now)
