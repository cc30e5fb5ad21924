"""[prompts] and [evaluation.prompts]: where problems come from and how they are put to the model."""

from typing import Annotated, Any, Literal

from pydantic import Field

from services.config.base import LocalPath, Strict


class JsonlSource(Strict):
    """One JSON object a line."""

    type: Literal["jsonl"] = "jsonl"
    path: LocalPath


class ParquetSource(Strict):
    """One Parquet file, or a folder of them."""

    type: Literal["parquet"] = "parquet"
    path: LocalPath


class HuggingFaceSource(Strict):
    """A dataset's name on the Hugging Face hub, or a folder in one of the layouts that `datasets` reads."""

    type: Literal["huggingface"] = "huggingface"
    name: str = Field(min_length=1)
    subset: str | None = None
    split: str = "train"


class ColumnMap(Strict):
    """Which column holds what. A prompt is a string or a list of chat messages."""

    prompt: str
    reference: str
    grader: str | None = None
    """Column that names the grader of each row; without it `grader` below holds for all."""
    options: str | None = None
    """Column with an object of grader options."""


Convention = Literal["plain", "gsm8k", "dapo-math-17k"]
"""plain: `prompt`, `reference`, optional `grader` and `options`.
gsm8k: `question`, and `answer` whose last line is `#### 42`.
dapo-math-17k: `prompt` as chat messages and `reward_model.ground_truth`."""


class PromptsConfig(Strict):
    source: Annotated[JsonlSource | ParquetSource | HuggingFaceSource, Field(discriminator="type")]
    columns: Convention | ColumnMap = "plain"
    grader: str = "math"
    options: dict[str, Any] = {}
    template: Literal["chat", "none"] = "chat"
    """chat: the tokenizer's chat template. none: the text as it is, for models without one."""
    system_prompt: str | None = None
    shuffle: bool = True


class EvaluationConfig(Strict):
    """Held-out problems, sampled at a pinned policy version."""

    prompts: PromptsConfig
    every_steps: int = Field(default=50, ge=1)
    samples_per_prompt: int = Field(default=4, ge=1)
    """k of avg@k and pass@k."""
    max_prompts: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0.0)
