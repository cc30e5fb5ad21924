"""RunConfig: one run, one section for each room, and the checks that span rooms."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import LocalPath, Strict
from services.config.deadlines import DeadlinesConfig
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.config.price import PriceConfig
from services.config.prompts import EvaluationConfig, PromptsConfig
from services.config.rollout import RolloutConfig
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
        if self.rollout.sampling.max_tokens >= self.model.max_length:
            raise ValueError(
                f"rollout.sampling.max_tokens = {self.rollout.sampling.max_tokens} leaves no room for a prompt within "
                f"model.max_length = {self.model.max_length}; lower the first or raise the second"
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
        if self.rollout.max_concurrent_sequences < self.rollout.sampling.group_size:
            raise ValueError(
                f"rollout.max_concurrent_sequences = {self.rollout.max_concurrent_sequences} cannot hold one group of "
                f"rollout.sampling.group_size = {self.rollout.sampling.group_size}"
            )
        return self

    @model_validator(mode="after")
    def median_has_a_middle(self) -> Self:
        size = self.rollout.sampling.group_size
        if self.learner.advantage.baseline == "median" and size % 2 == 0:
            raise ValueError(
                f'learner.advantage.baseline = "median" needs an odd rollout.sampling.group_size, not {size}'
            )
        return self
