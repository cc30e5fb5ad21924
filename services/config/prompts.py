"""[prompts] and [evaluation.prompts]: where problems come from and how they are put to the model."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from services.config.base import LocalPath, Strict
from services.config.effect import OnlyWith
from services.config.samplers import (
    AdaptiveGroupConfig,
    MixtureConfig,
    SamplerConfig,
    SkipConfig,
    UniformSampler,
    WeightsMixture,
)

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


class ReasoningGymSource(Strict):
    """Problems made by a task of the package reasoning-gym, and judged by its score (extra `reasoning-gym`)."""

    type: Literal["reasoning_gym"] = "reasoning_gym"
    task: str = Field(min_length=1)
    """Name of the task, such as "chain_sum"."""
    size: int = Field(default=1000, ge=1)
    """How many problems are made."""
    seed: int = Field(default=0, ge=0)
    """Decides which. In most tasks a problem follows from seed + its number: give held-out problems a seed that is at least
    `size` away."""
    settings: dict[str, Any] = {}
    """Settings of the task, such as {max_terms = 3}; its page says which it knows."""


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


Source = Annotated[JsonlSource | ParquetSource | HuggingFaceSource | ReasoningGymSource, Field(discriminator="type")]
SOURCE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"
MOST_SOURCES = 32
"""Each source has metrics of its own."""


class RowsConfig(Strict):
    """How rows become problems, and how those are put to the model."""

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


class SourceConfig(RowsConfig):
    """One of several sources of problems. What it does not say of columns, grader, options, template, system_prompt,
    chat_template_kwargs and skip_unreadable, the section around it says for all of them."""

    name: str = Field(pattern=SOURCE_NAME)
    """Name of the source: in steps.jsonl, in metrics and in the log."""
    weight: float = Field(default=1.0, gt=0.0, le=1e6)
    """Share of the prompts that come from this source, relative to the others' weights. Over any stretch of the run the number of
    its prompts is less than one per source away from that share."""
    source: Source
    """Where the rows are."""
    temperature: Annotated[float, Field(ge=0.01, le=2.0)] | None = None
    """Sampling temperature of this source's responses; by default rollout.sampling.temperature, and in an evaluation
    evaluation.temperature."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a response to this source's problems; by default rollout.sampling.max_tokens."""
    group_size: int | None = Field(default=None, ge=2)
    """Responses sampled for each of this source's problems; by default rollout.sampling.group_size."""
    max_prompts: int | None = Field(default=None, ge=1)
    """At most this many problems, the first of the source; by default all."""
    epochs: int | None = Field(default=None, ge=1)
    """The source ends after as many prompts as this many epochs have, and the other sources share its weight. By default it
    never ends."""


INHERITED = tuple(RowsConfig.model_fields)


class PromptsConfig(RowsConfig):
    """Where problems come from and how they are put to the model: one `source`, or several `[[prompts.sources]]`.
    docs/datasets.md has every convention with an example."""

    source: Source | None = None
    """Where the rows are; not with `sources`."""
    sources: Annotated[tuple[SourceConfig, ...], Field(strict=False, max_length=MOST_SOURCES)] = ()
    """Several sources with a name and a weight each; not with `source`."""
    shuffle: bool = True
    """Whether each epoch goes through the rows in an order of its own, which `seed` decides. Turn it off for a curriculum
    whose order is that of the file."""
    sampler: SamplerConfig = UniformSampler()
    """Which problem of a source is issued next. docs/samplers.md compares them."""
    mixture: MixtureConfig = WeightsMixture()
    """Which of several sources the next prompt comes from."""
    skip: SkipConfig = SkipConfig()
    """Problems that are always or never solved, left out for a while."""
    adaptive_group: AdaptiveGroupConfig | None = None
    """Larger groups where rewards vary; without this section every group has group_size responses."""

    @model_validator(mode="before")
    @classmethod
    def sources_take_what_holds_for_all(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or not isinstance(given.get("sources"), list):
            return given
        common = {key: given[key] for key in INHERITED if key in given}
        filled = [{**common, **one} if isinstance(one, Mapping) else one for one in given["sources"]]
        return {**given, "sources": filled}

    @model_validator(mode="after")
    def sources_are_told_apart(self) -> Self:
        if self.source is None and not self.sources:
            raise ValueError('no source: add source = {type = "jsonl", path = "..."}, or several [[prompts.sources]]')
        if self.source is not None and self.sources:
            raise ValueError("source and sources are both given; make the first one of the others, with a name")
        twice = [name for name, count in Counter(one.name for one in self.sources).items() if count > 1]
        if twice:
            raise ValueError(f'two sources are named "{twice[0]}"; give each a name of its own')
        return self

    @model_validator(mode="after")
    def what_is_asked_of_sources_can_hold(self) -> Self:
        if self.mixture.type == "group_dro" and len(self.sources) < 2:
            raise ValueError(
                'mixture.type = "group_dro" weighs several sources; add [[prompts.sources]], or leave it out'
            )
        if not self.shuffle and self.sampler.type == "curriculum":
            raise ValueError(
                'shuffle = false keeps the order of the file, and sampler.type = "curriculum" makes its own; leave one out'
            )
        return self

    def by_place(self, place: str) -> dict[str, SourceConfig]:
        """Each source by its place in the run file. place: that of this section. The single one has no name."""
        if self.source is None:
            return {f"{place}.sources.{number}": one for number, one in enumerate(self.sources)}
        own = {key: getattr(self, key) for key in INHERITED}
        return {place: SourceConfig.model_construct(name="", source=self.source, **own)}

    @property
    def each(self) -> tuple[SourceConfig, ...]:
        """The sources; the single one has no name."""
        return tuple(self.by_place("").values())


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
    """At most this many problems of each source, the first ones; by default all. Lower it when evaluations take too long."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0), AfterValidator(_zero_or_as_sampled)] = 1.0
    """Sampling temperature of evaluations, 0 or from 0.01 to 2. 0 is greedy decoding; samples_per_prompt is then best 1."""

    @model_validator(mode="after")
    def an_evaluation_asks_every_problem(self) -> Self:
        prompts = self.prompts
        if prompts.sampler.type != "uniform" or prompts.mixture.type != "weights" or prompts.skip != SkipConfig():
            raise ValueError(
                "an evaluation asks every problem: leave out prompts.sampler, prompts.mixture and prompts.skip"
            )
        if prompts.adaptive_group is not None:
            raise ValueError("an evaluation takes samples_per_prompt responses: leave out prompts.adaptive_group")
        for number, source in enumerate(prompts.sources):
            idle = [
                name
                for name in ("weight", "group_size", "epochs")
                if getattr(source, name) != type(source).model_fields[name].default
            ]
            if idle:
                raise ValueError(
                    f"prompts.sources.{number}.{idle[0]} has no effect: an evaluation asks every problem once, "
                    "samples_per_prompt times; leave it out"
                )
        return self
