"""[rollout]: the engine that samples, and how much it takes on at once."""

from typing import Annotated, Literal

from pydantic import Field

from services.config.base import Strict


class SamplingConfig(Strict):
    """How responses are drawn. There is no top_p or top_k: a truncated distribution would bias every importance ratio."""

    max_tokens: int = Field(ge=1)
    group_size: int = Field(default=8, ge=2)
    temperature: float = Field(default=1.0, gt=0.0)
    stop_token_ids: Annotated[tuple[int, ...], Field(strict=False)] = ()
    """In addition to the model's own end-of-sequence tokens."""


class RolloutConfig(Strict):
    sampling: SamplingConfig
    replicas: int = Field(default=1, ge=1)
    """How many `ratchet up` starts. Under Compose the number of containers decides."""
    max_concurrent_sequences: int = Field(default=256, ge=1)
    kv_cache_gib: float = Field(default=1.0, gt=0.0)
    """On CPU."""
    gpu_memory_fraction: float = Field(default=0.85, gt=0.0, le=1.0)
    """On GPU."""
    cpu_threads: int = Field(default=1, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    enforce_eager: bool = True
    kv_after_swap: Literal["keep", "recompute"] = "keep"
    """Requests in flight when weights change: keep their cache, or prefill them again under the new weights."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """0: any free port, recorded in the run directory."""
