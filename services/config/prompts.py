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


Convention = Literal["plain", "gsm8k", "dapo-math-17k", "math", "aime", "apps", "mbpp", "ifeval"]
"""plain: `prompt`, `reference`, optional `grader` and `options`.
gsm8k: `question`, and `answer` whose last line is `#### 42`.
dapo-math-17k: `prompt` as chat messages and `reward_model.ground_truth`.
math: `problem`, and `answer` or the last box in `solution`.
aime: `problem`, and `answer`, an integer from 000 to 999.
apps: `question`, `input_output` as JSON text, optional `starter_code`; TACO too.
mbpp: `text` or `prompt`, and `test_list` of `assert f(1) == 2`.
ifeval: `prompt`, `instruction_id_list`, `kwargs`.
docs/datasets.md has each with an example."""


class PromptsConfig(Strict):
    source: Annotated[JsonlSource | ParquetSource | HuggingFaceSource, Field(discriminator="type")]
    columns: Convention | ColumnMap = "plain"
    grader: str | None = None
    """Of all rows that name none; without it the one of the convention: "code" of apps and mbpp, "instructions" of ifeval,
    "math" of the others."""
    options: dict[str, Any] = {}
    """Of the grader; a row's own count more."""
    skip_unreadable: bool = False
    """Leave out, and count in the log, rows that do not follow the convention, instead of refusing the dataset."""
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
