"""RunConfig: one run, one section a room, and the checks that span rooms."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.config.base import LocalPath, Strict
from services.config.deadlines import DeadlinesConfig
from services.config.learner import LearnerConfig
from services.config.model import ModelConfig
from services.config.prompts import EvaluationConfig, PromptsConfig
from services.config.rollout import RolloutConfig
from services.config.verifier import VerifierConfig
from services.config.weights import WeightsConfig


class RedisConfig(Strict):
    """Where the streams live. The environment variable RATCHET_REDIS_URL goes before `url`, so that no password is in a file."""

    url: str | None = None
    """Without one, `ratchet up` starts a server of its own."""
    max_deliveries: int = Field(default=5, ge=1)
    """A group that was claimed so often and never handed over goes to `dead`."""


class RunConfig(Strict):
    """Everything that a run is made of."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: Literal["cuda", "cpu"] = "cuda"
    runs_folder: LocalPath = Field(default=Path("runs"), validate_default=False)
    """Checkpoints, metrics and logs go to runs_folder/name."""
    model: ModelConfig
    prompts: PromptsConfig
    evaluation: EvaluationConfig | None = None
    rollout: RolloutConfig
    verifier: VerifierConfig = VerifierConfig()
    learner: LearnerConfig
    weights: Annotated[WeightsConfig, Field(discriminator="type")]
    redis: RedisConfig = RedisConfig()
    deadlines: DeadlinesConfig = DeadlinesConfig()

    @property
    def folder(self) -> Path:
        return (self.runs_folder / self.name).resolve()

    @property
    def max_gap_nats(self) -> float:
        """Bound on the probe's log-prob gap after a broadcast."""
        if self.weights.max_gap_nats is not None:
            return self.weights.max_gap_nats
        return 1e-3 if self.model.dtype == "float32" else 0.5

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
