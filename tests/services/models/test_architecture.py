"""Models that learner and engine would compute differently are refused, told from their config."""

import pytest
from transformers import (
    GptOssConfig,
    GraniteMoeHybridConfig,
    Lfm2Config,
    LlamaConfig,
    Mamba2Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3NextConfig,
    T5Config,
)

from services.errors import InputError
from services.models.architecture import carries_state, check_architecture

LONG = {"rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GptOssConfig(), "GptOssForCausalLM without scaled_dot_product_attention"),
        (Mamba2Config(), "Mamba2ForCausalLM without scaled_dot_product_attention"),
        (T5Config(), 'model_type "t5" is not a causal language model'),
        (
            LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
            'rope of type "dynamic"',
        ),
        (Phi3Config(rope_parameters=LONG | {"rope_theta": 1e4}, original_max_position_embeddings=32), "LongRoPE"),
        (LlamaConfig.from_dict({"quantization_config": {"quant_method": "fp8"}}), "is quantized"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PreTrainedConfig) else "",
)
def test_what_is_refused_is_refused_with_its_reason(config: PreTrainedConfig, reason: str) -> None:
    with pytest.raises(InputError, match=rf"^model\.path = m.*{reason}"):
        check_architecture("model.path", "m", config, 64)


def test_longrope_is_computed_alike_up_to_the_original_length() -> None:
    config = Phi3Config(rope_parameters=LONG | {"rope_theta": 1e4}, original_max_position_embeddings=32)
    check_architecture("model.path", "m", config, 32)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Qwen2Config(), False),
        (LlamaConfig(), False),
        (GraniteMoeHybridConfig(layer_types=["mamba", "attention"], num_hidden_layers=2), True),
        (Lfm2Config(layer_types=["conv", "full_attention"], num_hidden_layers=2), True),
        (Qwen3NextConfig(), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_that_carry_a_state_along_a_row_are_known(config: PreTrainedConfig, expected: bool) -> None:
    assert carries_state(config) == expected
