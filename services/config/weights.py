"""[weights]: how a policy version travels from the learner to the replicas, and how equality is proved."""

from typing import Literal

from pydantic import Field

from services.config.base import Strict


class _Channel(Strict):
    host: str = "127.0.0.1"
    """Address of learner rank 0 on which the replicas reach the rendezvous store."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port of that store; 0: any free one."""
    bucket_mib: int = Field(default=64, ge=1)
    probe_tokens: int = Field(default=64, ge=2)
    """Length of the fixed sequence whose log-probs are compared after each broadcast."""
    max_gap_nats: float | None = Field(default=None, gt=0.0)
    """The run stops when a replica's probe differs by more. Default: 0.001 in float32, 0.5 in bfloat16."""


class NcclChannel(_Channel):
    type: Literal["nccl"] = "nccl"


class GlooChannel(_Channel):
    type: Literal["gloo"] = "gloo"


WeightsConfig = NcclChannel | GlooChannel
