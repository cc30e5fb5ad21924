"""Tiny models of many architectures, random and far from uniform, so that a mistake shows in whole nats."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GraniteMoeHybridConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
)

VOCABULARY = 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
WINDOW = 7
"""Keys that a layer with a sliding window sees: fewer than the tokens of the sequences that tests lay into rows."""
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 32}


CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "qwen2": (Qwen2Config, SIZES),
    "qwen2_tied": (Qwen2Config, SIZES | {"tie_word_embeddings": True}),
    "llama": (LlamaConfig, SIZES),
    "qwen3_moe": (Qwen3MoeConfig, SIZES | EXPERTS | {"norm_topk_prob": True}),
    "mixtral": (MixtralConfig, SIZES | {"num_local_experts": 4}),
    "gpt_neox": (GPTNeoXConfig, {name: value for name, value in SIZES.items() if name != "num_key_value_heads"}),
    "deepseek_v3": (
        DeepseekV3Config,
        SIZES
        | {
            "num_key_value_heads": 4,
            "first_k_dense_replace": 1,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "moe_intermediate_size": 16,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
        },
    ),
    "opt": (
        OPTConfig,
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "word_embed_proj_dim": 32,
            "tie_word_embeddings": False,
        },
    ),
    "granitemoehybrid": (
        GraniteMoeHybridConfig,
        SIZES
        | {
            "layer_types": ["mamba", "attention"],
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 16,
            "num_local_experts": 0,
            "shared_intermediate_size": 64,
        },
    ),
    "qwen3": (Qwen3Config, SIZES | {"head_dim": 8}),
    "olmo2": (Olmo2Config, SIZES),
    "mistral_window": (MistralConfig, SIZES | {"sliding_window": WINDOW}),
    "qwen2_window": (
        Qwen2Config,
        SIZES | {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": WINDOW},
    ),
    "phi3_window": (Phi3Config, SIZES | {"sliding_window": WINDOW}),
    "gemma2_window": (
        Gemma2Config,
        SIZES
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": None,
            "sliding_window": WINDOW,
        },
    ),
    "gemma3_window": (
        Gemma3TextConfig,
        SIZES
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": WINDOW,
        },
    ),
    "lfm2": (Lfm2Config, SIZES | {"layer_types": ["conv", "full_attention"]}),
    "qwen3_next": (
        Qwen3NextConfig,
        SIZES
        | EXPERTS
        | {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "shared_expert_intermediate_size": 16,
        },
    ),
}
"""By the name of the architecture in transformers: the class of its config, and the sizes given to it."""


def random_weights(architecture: str) -> Any:
    """A model of that architecture with weights of its own, router biases included."""
    config, sizes = CONFIGS[architecture]
    return randomized(config(**sizes))


def randomized(config: PreTrainedConfig) -> Any:
    """A model of this config in float32. No weight is what transformers begins with: norms, biases and router biases neither.

    Logits have a deviation of 1.7, whatever the hidden size.
    """
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    deviation = 1.7 / config.hidden_size**0.5
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=deviation)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.normal_(std=0.5)
    return model


def write_architecture(folder: Path, architecture: str, **saving: Any) -> Path:
    """Write such a model as transformers saves it."""
    random_weights(architecture).save_pretrained(folder, **saving)
    return folder
