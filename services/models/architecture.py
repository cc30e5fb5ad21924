"""Which models the learner computes as the engine does, told from their config alone."""

from collections.abc import Iterator
from typing import Any

from services.errors import InputError

LENGTH_DEPENDENT_ROPE = ("longrope", "su", "dynamic")
"""Kinds of rope whose frequencies depend on length. The engine decides by its longest possible sequence, once; transformers by
the longest sequence of each forward."""
ATTENTION_LAYERS = (
    "attention",
    "full_attention",
    "sliding_attention",
    "chunked_attention",
    "sliding",
    "full",
    "global",
)
"""Names in a config's layer_types of layers that hold nothing but a cache of keys and values."""


def check_architecture(setting: str, path: str, config: Any, max_length: int | None = None) -> None:
    """config: of transformers. max_length: model.max_length; None for a model that only scores in the learner.

    Raises InputError for a model that learner or engine cannot compute, or that they would compute differently.
    """
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(
            f"{setting} = {path} is quantized (quantization_config in its config.json), and quantized weights cannot be "
            "trained; take the unquantized model"
        )
    if max_length is not None:
        _check_rope(setting, path, config.get_text_config(), max_length)
    model = causal_lm_class(config)
    if model is None:
        if hasattr(config, "auto_map"):
            return  # code that comes with the model; what it lacks shows when it is loaded
        raise InputError(
            f'{setting} = {path}: model_type "{config.model_type}" is not a causal language model of the installed '
            "transformers; take a model that generates text"
        )
    if not model._supports_sdpa:
        raise InputError(
            f"{setting} = {path}: transformers computes {model.__name__} without scaled_dot_product_attention (it has "
            "attention sinks, ALiBi or no attention at all), which is all that the learner runs; take another model"
        )


def carries_state(config: Any) -> bool:
    """Whether layers carry a recurrent or convolution state along a row, as those of Mamba, gated delta nets and LFM2 do.

    transformers has no way to start such a state again between packed sequences, so the learner lays one sequence in a row.
    """
    kinds = getattr(config.get_text_config(), "layer_types", None) or ()
    if any(kind not in ATTENTION_LAYERS for kind in kinds):
        return True
    return bool(getattr(causal_lm_class(config), "_is_stateful", False))


def causal_lm_class(config: Any) -> Any:
    """The class of transformers for a config's causal language model; None where it has none."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)


def _check_rope(setting: str, path: str, config: Any, max_length: int) -> None:
    for rope in _ropes(config):
        kind = rope.get("rope_type", rope.get("type"))
        if kind not in LENGTH_DEPENDENT_ROPE:
            continue
        original = rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        if kind == "dynamic":
            raise InputError(
                f'{setting} = {path} has rope of type "dynamic", whose frequencies the engine takes from the longest '
                "sequence possible and the trainer from the longest sequence of a batch: their log-probs would differ. Take "
                'a model with another rope, or one converted to "yarn"'
            )
        if original is None or max_length > original:
            raise InputError(
                f"{setting} = {path} has LongRoPE: with model.max_length = {max_length} above the {original} positions of "
                "original_max_position_embeddings the engine uses the long factors for every sequence, and the trainer the "
                f"short ones for short sequences; their log-probs would differ. Lower model.max_length to {original} or less"
            )


def _ropes(config: Any) -> Iterator[dict[str, Any]]:
    """The rope settings of a config: one for all layers, or one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(rope, dict):
        return
    nested = [value for value in rope.values() if isinstance(value, dict)]
    yield from nested or [rope]
