"""Adapters of low rank (LoRA, arXiv:2106.09685): the factors of peft beside frozen weights, and what both come to together.

An adapted layer computes x W^T + scale (x A^T) B^T. W never changes, not by a bit: whoever needs a weight as a whole gets
W + scale B A as a tensor of its own. Factors have the model's dtype, and float32 masters in the optimizer like any weight.
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from services.config.lora import LoraConfig
from services.models.adapted import adapted_layers, linear_layers

ADAPTER = "default"
"""The name that peft gives to the only adapter of a model."""
BASE = ".base_layer."
"""What peft puts into the names of a frozen layer's parameters."""


class Adapters:
    """The factors of a causal language model, the same on every rank at first: they depend on the seed alone."""

    def __init__(
        self, causal_lm: Any, settings: LoraConfig, *, setting: str, path: str, dtype: torch.dtype, seed: int
    ) -> None:
        """Freeze every parameter of the model and put factors beside those of the chosen layers: A at random, B at 0.

        setting, path: the key that names the model, and what it says. dtype: the model's. Raises InputError for targets or a rank
        that the model cannot have.
        """
        import peft
        from peft.tuners.lora import LoraLayer

        self.config = peft.LoraConfig(
            base_model_name_or_path=path,
            task_type="CAUSAL_LM",
            r=settings.rank,
            lora_alpha=settings.alpha,
            use_rslora=settings.rslora,
            target_modules=adapted_layers(setting, path, linear_layers(causal_lm), settings),
        )
        """What peft needs to know to read them."""
        self.scale = settings.scale
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(self.config, causal_lm)
        self._model = causal_lm
        self._factors: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for name, module in causal_lm.named_modules():
            if isinstance(module, LoraLayer):
                sides: list[Any] = [module.lora_A[ADAPTER].to(dtype), module.lora_B[ADAPTER].to(dtype)]
                self._factors[f"{name}.weight"] = sides[0].weight, sides[1].weight

    def named_weights(self) -> list[tuple[str, nn.Parameter]]:
        """The frozen parameters, under the names that they have in the model without adapters."""
        own = {id(factor) for pair in self._factors.values() for factor in pair}
        return [(name.replace(BASE, "."), p) for name, p in self._model.named_parameters() if id(p) not in own]

    def factors(self, name: str) -> tuple[nn.Parameter, ...]:
        """A [rank, inputs] and B [outputs, rank] of the weight with this name; none where it has none."""
        return self._factors.get(name, ())

    @torch.no_grad()
    def whole(self, name: str, weight: Tensor) -> Tensor:
        """W + scale B A, added up in float32 and rounded once to the weight's dtype; a weight without factors itself.

        At stage 3 the weight and its factors have to be gathered.
        """
        if name not in self._factors:
            return weight.detach()
        a, b = self._factors[name]
        return torch.addmm(weight.float(), b.float(), a.float(), alpha=self.scale).to(weight.dtype)

    def named_factors(self) -> list[tuple[str, nn.Parameter]]:
        """All factors, under the names that they have in the files of peft."""
        return [
            (f"base_model.model.{name.removesuffix('weight')}{side}.weight", factor)
            for name, pair in self._factors.items()
            for side, factor in zip(("lora_A", "lora_B"), pair, strict=True)
        ]

    def write(self, factors: Iterable[tuple[str, Tensor]], folder: Path) -> None:
        """Write a folder that peft loads beside the starting model. factors: those of `named_factors`, whole."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        config = copy.copy(self.config)
        config.inference_mode = True
        config.save_pretrained(str(folder))
        tensors = {name: factor.contiguous() for name, factor in factors}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
