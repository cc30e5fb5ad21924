"""[prompts] and [evaluation.prompts]: where problems come from and how they are put to the model."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from services.config.base import LocalPath, Strict
from services.config.effect import OnlyWith

CHAT = OnlyWith(".template", "chat")


class JsonlSource(Strict):
    """A file with one JSON object per line."""

    type: Literal["jsonl"] = "jsonl"
    path: LocalPath
    """The file, relative to the file that names it."""


class ParquetSource(Strict):
    """One Parquet file, or a folder of them."""

    type: Literal["parquet"] = "parquet"
    path: LocalPath
    """The file, or a folder whose *.parquet files are read in the order of their names, relative to the file that names it."""


class HuggingFaceSource(Strict):
    """A dataset's name on the Hugging Face hub, or a folder in one of the layouts that `datasets` reads."""

    type: Literal["huggingface"] = "huggingface"
    name: str = Field(min_length=1)
    """Name on the hub, such as "openai/gsm8k", or a folder that `datasets` reads."""
    subset: str | None = None
    """The dataset's configuration, such as "main"; without one, the dataset's default."""
    split: str = "train"
    """The split to read, in the notation of `datasets`: "test", or "train[:95%]" to keep the rest for an evaluation."""


class ColumnMap(Strict):
    """A table of your own: which column holds what."""

    prompt: str
    """Column with the prompt: a text, or a list of chat messages with `role` and `content`."""
    reference: str
    """Column with what the grader compares answers with: any JSON value but null."""
    grader: str | None = None
    """Column that names the grader of each row; without one, `prompts.grader` holds for all rows."""
    options: str | None = None
    """Column with an object of grader options; without one, `prompts.options` hold for all rows."""


ConventionName = Literal["plain", "gsm8k", "dapo-math-17k", "math", "aime", "apps", "mbpp", "ifeval", "multi-if"]
"""Names of well-known layouts. services/datasets/conventions.py reads each; docs/datasets.md shows each with an example."""


class PromptsConfig(Strict):
    """Where problems come from and how they are put to the model. docs/datasets.md has every convention with an example."""

    source: Annotated[JsonlSource | ParquetSource | HuggingFaceSource, Field(discriminator="type")]
    """Where the rows are."""
    columns: ConventionName | ColumnMap = "plain"
    """How a row becomes a problem: the name of a convention, or a table of your own column names. "plain" reads the columns
    `prompt` and `reference`, and `grader` and `options` where there are any."""
    grader: str | None = None
    """Grader of all rows that name none. Without one, the convention's: "code" for apps and mbpp, "instructions" for ifeval
    and multi-if, "math" for the others."""
    options: dict[str, Any] = {}
    """Options of the grader for all rows; a row's own options take precedence."""
    skip_unreadable: bool = False
    """Whether rows that cannot be used are left out and counted: lines that are not JSON, rows that do not follow the
    convention, prompts that are too long or that the template refuses, and references by which the grader cannot judge. By
    default such rows stop the run before it starts."""
    template: Literal["chat", "none"] = "chat"
    """How prompts become text. chat: they go through the tokenizer's chat template. none: the text is used as it is, for
    models without one."""
    system_prompt: Annotated[str | None, CHAT] = None
    """System message put before each prompt, with template "chat"; none by default. Say here how answers should be marked,
    for example within \\boxed{}."""
    chat_template_kwargs: Annotated[dict[str, Any], CHAT] = {}
    """Arguments of the chat template, such as {enable_thinking = false}; the model's page says which it knows."""
    shuffle: bool = True
    """Whether each epoch goes through the rows in an order of its own, which `seed` decides. Turn it off for a curriculum
    whose order is that of the file."""


def _zero_or_as_sampled(temperature: float) -> float:
    if 0.0 < temperature < 0.01:
        raise ValueError(
            "vLLM takes 0.01 for a temperature between 0 and 0.01; give 0, which is greedy, or 0.01 or more"
        )
    return temperature


class EvaluationConfig(Strict):
    """Held-out problems, sampled at a pinned policy version. Without this section nothing is evaluated."""

    prompts: PromptsConfig
    """The held-out problems, with the same keys as [prompts]."""
    every_steps: int = Field(default=50, ge=1)
    """Learner steps between evaluations; the weights before the first step and after the last are evaluated as well.
    Training waits for an evaluation."""
    samples_per_prompt: int = Field(default=4, ge=1)
    """Responses to each prompt: k of avg@k and pass@k. Raise it when there are few problems."""
    max_prompts: int | None = Field(default=None, ge=1)
    """At most this many problems, the first of the dataset; by default all. Lower it when evaluations take too long."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0), AfterValidator(_zero_or_as_sampled)] = 1.0
    """Sampling temperature of evaluations, 0 or from 0.01 to 2. 0 is greedy decoding; samples_per_prompt is then best 1."""
