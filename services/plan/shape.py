"""The shape of a model: the numbers of its config.json that memory depends on, and how many parameters it has."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.errors import InputError

UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder of equal layers, as far as memory is concerned."""

    name: str
    """What the user calls it."""
    parameters: int
    """All of them, tied ones once."""
    layers: int
    hidden: int
    intermediate: int
    """Width of the MLP that one token goes through; for a mixture of experts, of the experts it is sent to together."""
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Whether embedding and lm_head are one matrix."""

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, which is also the size of lm_head."""
        return self.vocabulary * self.hidden

    @property
    def attention_width(self) -> int:
        """Query elements of one token in one layer."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Key elements of one token in one layer; as many value elements."""
        return self.kv_heads * self.head_dim

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of the linear layers that adapters go beside, by the usual names."""
        shapes = {
            "self_attn.q_proj": (self.attention_width, self.hidden),
            "self_attn.k_proj": (self.kv_width, self.hidden),
            "self_attn.v_proj": (self.kv_width, self.hidden),
            "self_attn.o_proj": (self.hidden, self.attention_width),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }
        return {f"layers.{n}.{name}": shape for n in range(self.layers) for name, shape in shapes.items()}

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer, all experts included."""
        return (self.parameters - self.embedding * (1 if self.tied else 2)) // self.layers


def shape_of(name: str, config: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json describes, its parameters counted from the widths.

    Raises InputError for a config that is not that of a decoder.
    """
    inner = config.get("text_config")
    own: Mapping[str, Any] = inner if isinstance(inner, Mapping) else config

    def number(*keys: str, default: int | None = None) -> int:
        for key in keys:
            if isinstance(own.get(key), int) and not isinstance(own[key], bool):
                return int(own[key])
        if default is None:
            raise InputError(
                f"{name}: its config.json has no {keys[0]}, so that its memory cannot be computed; give the shape with "
                "--parameters, --layers, --hidden, --intermediate, --heads, --kv-heads and --vocabulary"
            )
        return default

    hidden, heads = number("hidden_size", "n_embd", "d_model"), number("num_attention_heads", "n_head")
    width = number("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)
    experts = number("num_experts", "num_local_experts", "n_routed_experts", default=0)
    expert_width = number("moe_intermediate_size", default=width)
    active = number("num_experts_per_tok", default=1) * expert_width if experts else width
    tied = bool(own.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))
    shape = ModelShape(
        name=name,
        parameters=0,
        layers=number("num_hidden_layers", "n_layer"),
        hidden=hidden,
        intermediate=active,
        heads=heads,
        kv_heads=number("num_key_value_heads", default=heads),
        head_dim=number("head_dim", default=hidden // heads),
        vocabulary=number("vocab_size"),
        tied=tied,
    )
    mlp = 3 * hidden * (experts * expert_width if experts else width) + hidden * experts
    return replace(shape, parameters=_count(shape, mlp))


def described(
    name: str,
    *,
    parameters: str,
    layers: int,
    hidden: int,
    intermediate: int,
    heads: int,
    kv_heads: int | None,
    vocabulary: int,
) -> ModelShape:
    """A shape given in numbers. parameters: like "7.6B" or "494M"; whether lm_head is tied follows from it.

    Raises InputError for a number of parameters that cannot be read.
    """
    count = count_of("--parameters", parameters)
    shape = ModelShape(
        name, count, layers, hidden, intermediate, heads, kv_heads or heads, hidden // heads, vocabulary, tied=True
    )
    body = 3 * hidden * intermediate
    tied_off = abs(_count(shape, body) - count)
    untied_off = abs(_count(shape, body) + shape.embedding - count)
    return replace(shape, tied=tied_off <= untied_off)


def count_of(setting: str, text: str) -> int:
    """A number of parameters such as "7.6B", "494M" or "790000". Raises InputError."""
    unit = UNITS.get(text[-1:].lower(), 1)
    digits = text[:-1] if text[-1:].lower() in UNITS else text
    try:
        count = float(digits) * unit
    except ValueError:
        count = 0.0
    if not 1 <= count < 1e15:
        raise InputError(f'{setting} "{text}" is not a number of parameters; write it like 7.6B or 494M')
    return round(count)


def read_shape(setting: str, folder: Path) -> ModelShape:
    """The shape of a model folder: config.json, and the number of parameters from the headers of its safetensors files.

    A few milliseconds a file: only headers are read. Where there are no such files, parameters are counted from config.json.
    Raises InputError naming the setting.
    """
    counted = shape_of(str(folder), read_config(setting, folder / "config.json"))
    there = _parameters_in(folder, tied=counted.tied)
    return counted if there is None else replace(counted, parameters=there)


def read_config(setting: str, file: Path) -> dict[str, Any]:
    """A config.json. Raises InputError if it is missing or not JSON."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{setting}: there is no {file}; give a Hugging Face model folder") from None
    except (OSError, ValueError) as fault:
        raise InputError(f"{setting}: {file} cannot be read as a model's settings: {fault}; get it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{setting}: {file} is not the settings of a model; get it again")
    return content


def _parameters_in(folder: Path, *, tied: bool) -> int | None:
    """Elements of all tensors in the safetensors files that transformers would read, a tied lm_head left out; None if there are
    no such files, or if one cannot be read."""
    from safetensors import SafetensorError, safe_open

    single = folder / "model.safetensors"
    files = [single] if single.is_file() else sorted(folder.glob("model-*.safetensors"))
    total = 0
    for file in files:
        try:
            with safe_open(file, framework="np") as opened:
                for name in opened.keys():  # noqa: SIM118
                    if not (tied and name.endswith("lm_head.weight")):
                        total += math.prod(opened.get_slice(name).get_shape())
        except (OSError, SafetensorError):
            return None
    return total or None


def _count(shape: ModelShape, mlp: int) -> int:
    """Parameters of a decoder with these widths. mlp: those of one layer's MLP or experts. Biases and the norms of queries and
    keys, under a thousandth of the whole, are left out."""
    attention = 2 * shape.hidden * (shape.attention_width + shape.kv_width)
    body = shape.layers * (attention + mlp + 2 * shape.hidden)
    return body + shape.hidden + shape.embedding * (1 if shape.tied else 2)
