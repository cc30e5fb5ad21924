"""RunConfig: one run, one section for each room, and the checks that span rooms."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import LocalPath, Strict
from services.config.deadlines import DeadlinesConfig
from services.config.environment import EnvironmentConfig
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.config.price import PriceConfig
from services.config.prompts import EvaluationConfig, PromptsConfig, SourceConfig
from services.config.rollout import RolloutConfig, SamplingConfig
from services.config.shaping import ShapingConfig
from services.config.tools import PythonTool
from services.config.tracking import TrackingConfig
from services.config.verifier import VerifierConfig
from services.config.weights import WeightsConfig

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class RedisConfig(Strict):
    """Where the streams live. The environment variable RATCHET_REDIS_URL overrides `url`, so that no file needs a password."""

    url: str | None = None
    """URL of the server: redis://, rediss:// or unix://. Without one, `ratchet up` starts a server of its own."""
    ca_file: LocalPath | None = None
    """Certificates of the authorities that a rediss:// server's own is checked against: a PEM file. Default: the system's."""
    certificate_file: LocalPath | None = None
    """This client's own certificate, for a rediss:// server that asks for one: a PEM file."""
    key_file: LocalPath | None = None
    """The key of certificate_file: a PEM file."""
    max_deliveries: int = Field(default=3, ge=1)
    """Times that a group may be claimed without being handed over; then it goes to `dead`: a prompt that kills its worker three
    times does not go round the fleet. Claims of workers that stopped cleanly do not count."""


class RunConfig(Strict):
    """One run: everything that its services need to know."""

    name: str = Field(pattern=NAME_PATTERN)
    """Name of the run: of its folder, and of its keys in Redis. A run with the name of an earlier one resumes it."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Decides the order of the problems, the random draws of sampling and the first factors of adapters (learner.lora)."""
    device: Literal["cuda", "cpu"] = "cuda"
    """What engines and learner run on. cpu is for trying things out, with small models."""
    runs_folder: LocalPath = Field(default=Path("runs"), validate_default=False)
    """Folder of all runs, relative to the file that names it: checkpoints, metrics and logs go to runs_folder/name.
    Default: `runs` in the folder where the command is called."""
    model: ModelConfig
    """The starting model."""
    prompts: PromptsConfig
    """The problems to train on."""
    evaluation: EvaluationConfig | None = None
    """Held-out problems; without this section nothing is evaluated."""
    environment: EnvironmentConfig | None = None
    """With whom the policy talks; without this section each response answers one prompt."""
    rollout: RolloutConfig
    """The replicas that sample."""
    verifier: VerifierConfig = VerifierConfig()
    """The service that scores."""
    learner: LearnerConfig
    """The optimizer step, its objective and its control."""
    weights: Annotated[WeightsConfig, Field(discriminator="type")]
    """How weights travel from the learner to the replicas."""
    redis: RedisConfig = RedisConfig()
    """Where the streams live."""
    tracking: TrackingConfig = TrackingConfig()
    """Where figures go besides the run's own files."""
    deadlines: DeadlinesConfig = DeadlinesConfig()
    """How long each wait may last."""
    price: PriceConfig = PriceConfig()
    """What the hardware costs."""

    @property
    def folder(self) -> Path:
        return (self.runs_folder / self.name).resolve()

    @property
    def engine_is_eager(self) -> bool:
        """rollout.enforce_eager, or its default on this device."""
        eager = self.rollout.enforce_eager
        return self.device == "cpu" if eager is None else eager

    @property
    def engine_shares_process(self) -> bool:
        """rollout.engine_process = "shared", or its default on this device."""
        if self.rollout.engine_process == "auto":
            return self.device == "cpu" and self.rollout.tensor_parallel == 1
        return self.rollout.engine_process == "shared"

    @model_validator(mode="after")
    def channel_fits_device(self) -> Self:
        if self.device == "cpu" and self.weights.type == "nccl":
            raise ValueError('weights.type = "nccl" needs device = "cuda"; on CPU set weights.type = "gloo"')
        return self

    @model_validator(mode="after")
    def stage_fits_dtype(self) -> Self:
        if self.learner.zero_stage == 0 and self.model.dtype == "bfloat16":
            raise ValueError(
                'learner.zero_stage = 0 keeps no float32 masters for model.dtype = "bfloat16"; use stage 1 or more'
            )
        return self

    @model_validator(mode="after")
    def response_fits_model(self) -> Self:
        asked = {"rollout.sampling": self.rollout.sampling.max_tokens}
        sources = self.prompts.by_place("prompts")
        if self.evaluation is not None:
            sources |= self.evaluation.prompts.by_place("evaluation.prompts")
        asked |= {place: one.max_tokens for place, one in sources.items() if one.max_tokens is not None}
        for place, max_tokens in asked.items():
            if max_tokens >= self.model.max_length:
                raise ValueError(
                    f"{place}.max_tokens = {max_tokens} leaves no room for a prompt within "
                    f"model.max_length = {self.model.max_length}; lower the first or raise the second"
                )
        return self

    @property
    def most_open_sequences(self) -> int:
        """Responses that a replica begins before others are finished: in its engine, or in conversations."""
        in_engine = self.rollout.max_concurrent_sequences
        if self.environment is None:
            return in_engine
        return self.environment.open_conversations or 2 * in_engine

    @property
    def most_words_tokens(self) -> int:
        """environment.max_words_tokens, or its default."""
        given = self.environment.max_words_tokens if self.environment else None
        return given or self.model.max_length // 2

    @model_validator(mode="after")
    def conversation_fits_model(self) -> Self:
        if self.environment is None:
            return self
        spoken, own = self.rollout.sampling.max_tokens, self.environment
        if own.max_turns > spoken:
            raise ValueError(
                f"environment.max_turns = {own.max_turns} turns cannot have a token each within "
                f"rollout.sampling.max_tokens = {spoken}; lower the first or raise the second"
            )
        if own.max_turn_tokens is not None and own.max_turn_tokens > spoken:
            raise ValueError(
                f"environment.max_turn_tokens = {own.max_turn_tokens} is more than all messages of a conversation may have "
                f"together, rollout.sampling.max_tokens = {spoken}; lower the first or raise the second"
            )
        if own.max_turns > 1 and self.most_words_tokens + 2 > self.model.max_length:
            raise ValueError(
                f"environment.max_words_tokens = {self.most_words_tokens} leaves no room for two turns within "
                f"model.max_length = {self.model.max_length}; lower the first or raise the second"
            )
        if self.most_open_sequences < self.rollout.sampling.group_size:
            raise ValueError(
                f"environment.open_conversations = {own.open_conversations} cannot hold one group of "
                f"rollout.sampling.group_size = {self.rollout.sampling.group_size}"
            )
        return self

    @model_validator(mode="after")
    def turns_have_an_environment(self) -> Self:
        if self.learner.advantage.turns is not None and self.environment is None:
            raise ValueError(
                "learner.advantage.turns compares what an environment gives turn by turn, and there is no section "
                "[environment]; add it, or leave [learner.advantage.turns] out"
            )
        return self

    @model_validator(mode="after")
    def programs_fit_the_sandbox(self) -> Self:
        ceilings = self.verifier.sandbox
        for number, tool in enumerate(self.environment.tools if self.environment else ()):
            if not isinstance(tool, PythonTool) or tool.url is not None:
                continue
            place = f"environment.tools.{number}"
            for name, most in (("wall_s", ceilings.max_wall_s), ("memory_mb", ceilings.max_memory_mb)):
                if getattr(tool, name) > most:
                    raise ValueError(
                        f"{place}.{name} = {getattr(tool, name):g} is above verifier.sandbox.max_{name} = {most:g}; lower the "
                        "first or raise the second"
                    )
            if tool.wall_s >= tool.seconds:
                raise ValueError(
                    f"{place}.wall_s = {tool.wall_s:g} leaves no time for the way to the verifier within seconds = "
                    f"{tool.seconds:g}; raise the second"
                )
        return self

    @model_validator(mode="after")
    def sequence_fits_row(self) -> Self:
        if self.learner.row_tokens < self.model.max_length:
            raise ValueError(
                f"learner.row_tokens = {self.learner.row_tokens} cannot hold a sequence of "
                f"model.max_length = {self.model.max_length} tokens; raise it to at least that"
            )
        return self

    @model_validator(mode="after")
    def group_fits_engine(self) -> Self:
        for place, size in self._group_sizes().items():
            if self.rollout.max_concurrent_sequences < size:
                raise ValueError(
                    f"rollout.max_concurrent_sequences = {self.rollout.max_concurrent_sequences} cannot hold one group of "
                    f"{place} = {size}"
                )
        return self

    @model_validator(mode="after")
    def median_has_a_middle(self) -> Self:
        for place, size in self._group_sizes().items():
            if self.learner.advantage.baseline == "median" and size % 2 == 0:
                raise ValueError(f'learner.advantage.baseline = "median" needs an odd {place}, not {size}')
        return self

    @model_validator(mode="after")
    def adaptive_groups_hold_the_usual_size(self) -> Self:
        bounds = self.prompts.adaptive_group
        for place, size in self._group_sizes().items():
            if bounds is not None and not bounds.least <= size <= bounds.most:
                raise ValueError(
                    f"{place} = {size}, with which a problem is sampled first, is not between prompts.adaptive_group.least = "
                    f"{bounds.least} and prompts.adaptive_group.most = {bounds.most}"
                )
        return self

    @model_validator(mode="after")
    def shaping_is_within_reach(self) -> Self:
        shaping = self.learner.shaping or ShapingConfig()
        for place, source in self.prompts.by_place("prompts").items():
            asked = "rollout.sampling" if source.max_tokens is None else place
            most = self.sampling_of(source).max_tokens
            overlong, budget = shaping.overlong, shaping.budget
            if overlong is not None and overlong.buffer_tokens > most:
                raise ValueError(
                    f"learner.shaping.overlong.buffer_tokens = {overlong.buffer_tokens} is above {asked}.max_tokens = {most}, "
                    "so that every response would be punished; lower the first or raise the second"
                )
            if budget is not None and budget.tokens > most:
                raise ValueError(
                    f"learner.shaping.budget.tokens = {budget.tokens} is above {asked}.max_tokens = {most}, which no response "
                    "exceeds; lower the first or raise the second"
                )
        return self

    def sampling_of(self, source: SourceConfig) -> SamplingConfig:
        """How responses to a source's problems are drawn: rollout.sampling, and what the source says otherwise."""
        own = {name: getattr(source, name) for name in ("temperature", "max_tokens", "group_size")}
        return self.rollout.sampling.model_copy(
            update={name: value for name, value in own.items() if value is not None}
        )

    @property
    def largest_group(self) -> int:
        """Responses of the largest group that a prompt of this run may ask for."""
        return max(self._group_sizes().values())

    def _group_sizes(self) -> dict[str, int]:
        """Every size that a group may have, by the setting that says so."""
        sizes = {"rollout.sampling.group_size": self.rollout.sampling.group_size}
        for place, source in self.prompts.by_place("prompts").items():
            if source.group_size is not None:
                sizes[f"{place}.group_size"] = source.group_size
        if (bounds := self.prompts.adaptive_group) is not None:
            sizes |= {"prompts.adaptive_group.least": bounds.least, "prompts.adaptive_group.most": bounds.most}
        return sizes
