"""Which models the engine serves, told from their config and from the installed vLLM's own list, without importing vLLM.

vLLM finds out when it starts, minutes into a run and on every replica. Its import takes seconds, so its list of architectures is
read from the source of its registry.
"""

import ast
import importlib.util
from pathlib import Path
from typing import Any, Literal

from services.errors import InputError

LISTS = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
"""Dictionaries of vLLM's registry whose keys are classes that generate text."""
CPU_HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM's attention kernel for CPUs takes (CPUAttentionBackend.get_supported_head_sizes). Another size ends the engine's
process at the first request."""
CPU_LATENT_SIZE = (512, 64)
"""kv_lora_rank and qk_rope_head_dim, of which vLLM's kernel of latent attention for CPUs takes these alone."""

READ_BY_ENGINE: dict[str, dict[str, str | None]] = {
    "lfm2": {"conv_dim": None, "block_dim": None},
    "deepseek_v3": {"scoring_func": "sigmoid", "topk_method": "noaux_tc"},
}
"""model_type -> keys that vLLM reads and transformers does not write, with what transformers computes where one value alone is
right. Models are published with them; a config.json that transformers has written again lacks them, and then vLLM does not start,
or routes to other experts."""

WRONG_ON_CPU = {
    "lfm2": "short convolutions, whose log-probs were seen to differ by 1.7 nats a token, and at each request by another amount",
    "deepseek_v3": "latent attention and its router, whose log-probs were seen to differ by 1.4 nats a token",
    "granitemoehybrid": "Mamba layers, whose log-probs in bfloat16 were seen to differ by 1.2 nats a token after a swap",
}
"""model_type -> what vLLM's CPU build was seen to compute otherwise than transformers (docs/log.md)."""
GATED_DELTA = "gated delta nets, at which the engine of a Qwen3-Next was seen to end with its first request"
WRONG_ON_CPU |= dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), GATED_DELTA)


def check_served(setting: str, path: str, config: Any, device: Literal["cpu", "cuda"]) -> None:
    """config: of transformers, for the model in `path`. Raises InputError for a model that the engine does not serve."""
    text = config.get_text_config()
    if text is not config and config.model_type != text.model_type:
        raise InputError(
            f"{setting} = {path} is a model of text and more ({config.model_type}: its config.json has a section for text), "
            "whose weights have not been seen to find their places in the engine; take a model of text alone"
        )
    named = list(getattr(config, "architectures", None) or ())
    if not named:
        raise InputError(
            f'{setting} = {path}: its config.json names no class ("architectures"), by which vLLM chooses its code; add it, '
            'such as "architectures": ["Qwen2ForCausalLM"]'
        )
    known = engine_architectures()
    if known is not None and not any(name in known or _falls_back(name) for name in named):
        raise InputError(
            f"{setting} = {path}: the installed vLLM has no {' or '.join(named)} and cannot run it through transformers; take "
            "a model of another architecture (docs/models.md has those that were tried)"
        )
    for key, value in READ_BY_ENGINE.get(config.model_type, {}).items():
        has = getattr(config, key, None)
        if has is None or (value is not None and has != value):
            raise InputError(
                f"{setting} = {path}: vLLM reads {key} in config.json, which is {'absent' if has is None else repr(has)} there"
                f"{'' if value is None else f' and has to be {value!r}, as transformers computes it'}; take the config.json "
                "that the model was published with"
            )
    if device == "cpu":
        if config.model_type in WRONG_ON_CPU:
            raise InputError(
                f"{setting} = {path}: vLLM does not compute it on a CPU as transformers does: it has "
                f"{WRONG_ON_CPU[config.model_type]}; take another model, or a GPU"
            )
        _check_heads(setting, path, config)


def engine_architectures() -> frozenset[str] | None:
    """Names of the classes that the installed vLLM has code for; None where there is no vLLM, or another list than expected."""
    found = importlib.util.find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        return None
    source = Path(found.submodule_search_locations[0]) / "model_executor/models/registry.py"
    if not source.is_file():
        return None
    lists = {
        target.id: [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in LISTS
    }
    if lists.keys() != set(LISTS):
        return None
    return frozenset(str(name) for names in lists.values() for name in names)


def _falls_back(name: str) -> bool:
    """Whether vLLM runs transformers' own class, with attention of its own, for lack of a class in vLLM."""
    import transformers

    model = getattr(transformers, name, None)
    return model is not None and bool(getattr(model, "_supports_attention_backend", False))


def _check_heads(setting: str, path: str, config: Any) -> None:
    rank, rope = getattr(config, "kv_lora_rank", None), getattr(config, "qk_rope_head_dim", None)
    if rank is not None:
        if (rank, rope) != CPU_LATENT_SIZE and config.model_type != "minicpm3":  # which vLLM computes with plain heads
            raise InputError(
                f"{setting} = {path} has latent attention of {rank} + {rope} (kv_lora_rank, qk_rope_head_dim), and vLLM's kernel "
                f"for CPUs takes {CPU_LATENT_SIZE[0]} + {CPU_LATENT_SIZE[1]} alone; take another model, or a GPU"
            )
        return
    heads = getattr(config, "num_attention_heads", None)
    size = getattr(config, "head_dim", None) or (
        config.hidden_size // heads if isinstance(heads, int) and heads else None
    )
    if isinstance(size, int) and size not in CPU_HEAD_SIZES:
        raise InputError(
            f"{setting} = {path} has attention heads of {size}, and vLLM's kernel for CPUs takes "
            f"{', '.join(map(str, CPU_HEAD_SIZES))}; take another model, or a GPU"
        )
