"""The rows of the table: tiny random models that differ in what a real model of the architecture has of its own.

Heads are of 32, the least that vLLM's CPU kernel takes; windows and rope bounds are shorter than the probe, so that they count.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import AutoConfig, PreTrainedTokenizerFast

from tests.architectures import EXPERTS, SIZES, VOCABULARY, randomized

MAX_LENGTH = 64
WINDOW = 8
DENSE: dict[str, Any] = SIZES | {"hidden_size": 128, "intermediate_size": 192}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW, "head_dim": 32}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0 + 0.05 * i for i in range(16)],
    "long_factor": [1.0 + 0.5 * i for i in range(16)],
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LATENT = {
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "num_key_value_heads": 4,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
    "num_experts_per_tok": 2,
    "n_routed_experts": 4,
    "first_k_dense_replace": 1,
}
"""The CPU kernels take one size of DeepSeek's attention: 512 + 64."""
DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "head_dim": 32,
}
WIDE_EXPERTS = EXPERTS | {"moe_intermediate_size": 64}


@dataclass(frozen=True)
class Model:
    """One row."""

    kind: str
    """model_type of transformers."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """What differs from DENSE."""
    without: tuple[str, ...] = ()
    """Keys of DENSE that the config does not have."""
    max_length: int = MAX_LENGTH

    def config(self) -> Any:
        sizes = {name: value for name, value in DENSE.items() if name not in self.without}
        return AutoConfig.for_model(self.kind, **(sizes | self.sizes))


TIED = {"tie_word_embeddings": True}
MODELS: dict[str, Model] = {
    "Qwen2": Model("qwen2"),
    "Qwen2.5, tied": Model("qwen2", TIED),
    "Qwen3": Model("qwen3", {"head_dim": 64}),
    "Qwen3, tied": Model("qwen3", {"head_dim": 32} | TIED),
    "Llama 2": Model("llama"),
    "Llama 3.1": Model("llama", {"rope_parameters": LLAMA3}),
    "Llama 3.2, tied": Model("llama", {"rope_parameters": LLAMA3} | TIED),
    "Mistral, window": Model("mistral", {"sliding_window": WINDOW, "head_dim": 32}),
    "Gemma 2, tied": Model("gemma2", WINDOWS | TIED | {"query_pre_attn_scalar": 32, "attn_logit_softcapping": 5.0}),
    "Gemma 3, tied": Model("gemma3_text", WINDOWS | TIED | {"query_pre_attn_scalar": 32}),
    "Phi 3": Model("phi3"),
    "Phi 3, long-rope": Model(
        "phi3",
        {
            "rope_parameters": LONGROPE,
            "original_max_position_embeddings": MAX_LENGTH,
            "max_position_embeddings": 4 * MAX_LENGTH,
        },
    ),
    "Phi 3, long-rope beyond": Model(
        "phi3",
        {
            "rope_parameters": LONGROPE,
            "original_max_position_embeddings": MAX_LENGTH // 2,
            "max_position_embeddings": 4 * MAX_LENGTH,
        },
    ),
    "OLMo 2": Model("olmo2"),
    "OLMo 3, window": Model("olmo3", {name: WINDOWS[name] for name in ("layer_types", "sliding_window")}),
    "Qwen3-MoE": Model("qwen3_moe", WIDE_EXPERTS | {"norm_topk_prob": True}),
    "Qwen2-MoE": Model("qwen2_moe", WIDE_EXPERTS | {"shared_expert_intermediate_size": 64}),
    "Mixtral": Model("mixtral", {"num_local_experts": 4}),
    "OLMoE": Model("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "DeepSeek-V3": Model(
        "deepseek_v3", LATENT | {"q_lora_rank": 64, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
    ),
    "GLM 4": Model("glm4", {"head_dim": 32}),
    "GLM 4.5": Model(
        "glm4_moe",
        {
            "head_dim": 32,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
        },
    ),
    "SmolLM 3, tied": Model("smollm3", {"no_rope_layers": [1, 0]} | TIED),
    "StarCoder 2, tied": Model("starcoder2", TIED),
    "Yarn (Qwen2)": Model("qwen2", {"rope_parameters": YARN}),
    "GPT-NeoX": Model("gpt_neox", without=("num_key_value_heads",)),
    "Granite": Model("granite", {"logits_scaling": 8.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5}),
    "Cohere 2, tied": Model("cohere2", WINDOWS | TIED, without=()),
    "gpt-oss": Model("gpt_oss", WINDOWS | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "OPT": Model(
        "opt",
        {"ffn_dim": 192, "word_embed_proj_dim": 128},
        without=("intermediate_size", "num_key_value_heads"),
    ),
    "LFM2": Model("lfm2", {"layer_types": ["conv", "full_attention"], "conv_dim": 128, "block_dim": 128}),
    "Granite 4 hybrid": Model(
        "granitemoehybrid",
        {
            "layer_types": ["mamba", "attention"],
            "mamba_n_heads": 8,
            "mamba_d_head": 32,
            "mamba_d_state": 16,
            "num_local_experts": 0,
            "shared_intermediate_size": 192,
            "num_experts_per_tok": 0,
        },
    ),
    "Qwen3-Next": Model("qwen3_next", WIDE_EXPERTS | DELTA | {"shared_expert_intermediate_size": 64}),
    "Qwen3.5": Model("qwen3_5_text", DELTA),
    "heads of 16": Model("qwen3", {"head_dim": 16}),
}


def write_model(name: str, dtype: str, folder: Path) -> Path:
    """Write the row's model as transformers saves it, with a tokenizer that has a word for each token and no end."""
    randomized(MODELS[name].config()).to(getattr(torch, dtype)).save_pretrained(folder)
    _as_published(folder / "config.json")
    words = Tokenizer(models.WordLevel({f"t{i}": i for i in range(VOCABULARY)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="t0").save_pretrained(folder)
    return folder


def _as_published(file: Path) -> None:
    """Write rope and experts as transformers 4 did, and as models are published: it does not read the keys of version 5."""
    config = json.loads(file.read_text(encoding="utf-8"))
    rope = config.get("rope_parameters")
    if rope and "rope_theta" in rope:  # and not one for each kind of layer
        del config["rope_parameters"]
        config["rope_theta"], kind = rope.pop("rope_theta"), rope.get("rope_type")
        if kind == "longrope":
            config["rope_scaling"] = {"type": kind} | {key: rope[key] for key in ("short_factor", "long_factor")}
        elif kind != "default":
            config["rope_scaling"] = rope
    if config["model_type"] in ("qwen2_moe", "qwen3_moe", "qwen3_next") and "num_local_experts" in config:
        config["num_experts"] = config.pop("num_local_experts")
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")
