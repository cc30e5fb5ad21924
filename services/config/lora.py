"""[learner.lora]: adapters of low rank, trained instead of the model's own weights."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from services.config.base import Strict

ALL_LINEAR: Literal["all-linear"] = "all-linear"
LayerName = Annotated[str, Field(min_length=1)]


class LoraConfig(Strict):
    """Adapters of low rank (LoRA, arXiv:2106.09685). The model's own weights W stay as they are; beside each adapted layer two
    factors are trained, A at random and B at 0 in the beginning, and the layer computes with W + scale x B A. Without this
    section every weight is trained. There is no dropout: it would make importance ratios random."""

    rank: int = Field(default=16, ge=1)
    """Rows of A and columns of B. More can learn more, and takes memory and time in proportion."""
    alpha: int = Field(default=32, ge=1)
    """Decides scale, which is alpha / rank."""
    rslora: bool = False
    """Whether scale is alpha / sqrt(rank) instead (rsLoRA, arXiv:2312.03732), so that large ranks learn as fast as
    small ones."""
    targets: Literal["all-linear"] | Annotated[tuple[LayerName, ...], Field(strict=False)] = ALL_LINEAR
    """Layers that are adapted: "all-linear" for every linear layer but the output head, or a list of the last parts of their
    names, such as ["q_proj", "v_proj"]. Embeddings, norms, the output head and fused experts cannot be adapted."""

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @model_validator(mode="before")
    @classmethod
    def has_no_dropout(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and any("dropout" in str(key) for key in given):
            raise ValueError("dropout would make the ratios of current to behavior policy random; leave it out")
        return given

    @field_validator("targets", mode="before")
    @classmethod
    def targets_are_a_list(cls, given: Any) -> Any:
        if isinstance(given, str) and given != ALL_LINEAR:
            raise ValueError(f'"{given}" is not a list; write ["{given}"], or "{ALL_LINEAR}"')
        if isinstance(given, list | tuple) and not given:
            raise ValueError(
                f'is empty; name a layer, as in ["q_proj"], write "{ALL_LINEAR}", or leave [learner.lora] out'
            )
        return given
