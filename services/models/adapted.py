"""Which layers LoRA adapts, and how many numbers are trained then. Told from names and shapes alone."""

from collections.abc import Mapping
from typing import Any

from services.config.lora import ALL_LINEAR, LoraConfig
from services.errors import InputError

Shape = tuple[int, int]
"""Outputs and inputs of a linear layer."""


def linear_layers(model: Any) -> dict[str, Shape]:
    """The linear layers of a causal language model by name, the output head left out.

    model: of transformers; its tensors may be on the meta device.
    """
    head = model.get_output_embeddings()
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if module is not head and _is_linear(module)
    }


def _is_linear(module: Any) -> bool:
    """Told by the name of its class: only services/weights may import torch on the ground floor."""
    return any((cls.__module__, cls.__name__) == ("torch.nn.modules.linear", "Linear") for cls in type(module).__mro__)


def adapted_layers(setting: str, path: str, layers: Mapping[str, Shape], lora: LoraConfig) -> list[str]:
    """The names of the layers that get factors, in the order of `layers`.

    setting, path: the key that names the model, and what it says. layers: see `linear_layers`. Raises InputError for a target
    that is not among them, and for a rank that none of them can have.
    """
    last = {name: name.rpartition(".")[2] for name in layers}
    there = ", ".join(sorted(set(last.values())))
    if not layers:
        raise InputError(
            f"learner.lora: {setting} = {path} has no linear layer besides its head; leave [learner.lora] out"
        )
    targets = set(last.values()) if lora.targets == ALL_LINEAR else set(lora.targets)
    if unknown := sorted(targets - set(last.values())):
        raise InputError(
            f'learner.lora.targets: "{unknown[0]}" is not a layer of {setting} = {path} that can be adapted; those are {there}'
        )
    chosen = [name for name in layers if last[name] in targets]
    highest = max(min(layers[name]) for name in chosen)
    if lora.rank > highest:
        raise InputError(
            f"learner.lora.rank = {lora.rank} is above the rank {highest} of the largest adapted layer of {setting} = {path}; "
            f"lower it to {highest} or less, or leave [learner.lora] out to train every weight"
        )
    return chosen


def trainable_parameters(
    lora: LoraConfig | None, every: int, layers: Mapping[str, Shape], *, setting: str = "model.path", path: str
) -> int:
    """How many numbers the learner trains: those that gradients and optimizer states are kept of.

    every: the model's parameters. layers: see `linear_layers`. Raises InputError as `adapted_layers` does.
    """
    if lora is None:
        return every
    return sum(lora.rank * sum(layers[name]) for name in adapted_layers(setting, path, layers, lora))


def description(lora: LoraConfig | None) -> dict[str, Any] | None:
    """What a checkpoint says of its adapters, as JSON values; None where every weight is trained."""
    return None if lora is None else lora.model_dump(mode="json")


def check_same_adapters(checkpoint: str, written: Mapping[str, Any] | None, lora: LoraConfig | None) -> None:
    """Raise InputError if a checkpoint's adapters are not those of today's settings. written: its `description`."""
    now = description(lora)
    if written == now:
        return
    if written is None or now is None:
        trained = ("every weight" if one is None else f"adapters of rank {one['rank']}" for one in (written, now))
        said = "the checkpoint {} was written by a run that trains {}, and this one trains {}".format(
            checkpoint, *trained
        )
        what = "[learner.lora]"
    else:
        key = next(key for key in now if written.get(key) != now[key])
        said = f"learner.lora.{key} = {now[key]}, and the checkpoint {checkpoint} was written with {written.get(key)}"
        what = "it"
    raise InputError(
        f"{said}; set {what} back as it was, or choose another name for a new run, which may start from this one's export"
    )
