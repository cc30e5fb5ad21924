"""[weights]: how a policy version travels from the learner to the replicas, and how equality is proved."""

from typing import Literal

from pydantic import Field

from services.config.base import Host, Strict


class _Channel(Strict):
    """Settings of every weight channel."""

    host: Host = "127.0.0.1"
    """Address of learner rank 0 at which the replicas reach its rendezvous store. Set it when replicas run on other hosts."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port of that store; 0 takes any free one. Set it when a firewall or a container needs a fixed port."""
    serve_host: Host | None = None
    """Address that the learner listens on for replicas that fetch a version by themselves: those that were late, or have just
    joined. Default: loopback if `host` is a loopback address, and every interface otherwise. Requests need a token, which is
    another one for each start of the learner and is announced in Redis."""
    serve_port: int = Field(default=0, ge=0, le=65535)
    """Port for that; 0 takes any free one. Set it when a firewall or a container needs a fixed port."""
    bucket_mib: int = Field(default=64, ge=1)
    """MiB of weights in one broadcast. Larger buckets mean fewer collectives and more memory at both ends."""
    delta: bool = False
    """Whether a version goes out as what changed since the one before, bucket by bucket, where that is at most half of the bytes.
    Set it where the network is slower than memory: at a learning rate of 1e-6 a step changes about one value in a hundred. The
    learner keeps the weights once more (`ratchet plan`), and compares them while the next step is computed."""
    probe_tokens: int = Field(default=64, ge=2)
    """Tokens of each of the two fixed sequences whose log-probs prove, after each broadcast, that weights are equal. The second
    is compared only where the first says that they are not."""
    max_gap_nats: float | None = Field(default=None, gt=0.0)
    """The run stops when a token of both probes differs between replica and learner by more than this, in nats. Default: 0.001 in
    float32; in bfloat16 three times what the two differed by for the weights on disk or a version that was accepted since, in the
    mean (0.02 to 0.12) and at nine in ten tokens (0.05 to 0.3), and 1.0 at any token. Raise it only after you know where the
    difference comes from."""
    max_mismatch_nats: float | None = Field(default=None, gt=0.0)
    """Largest mean KL per token between engine and learner, in nats, over sequences sampled under the learner's current
    weights alone (engine_mismatch_kl in steps.jsonl). Above it there is a warning. Default: 0.0001 in float32; in bfloat16 the
    square of what the two differ by for the weights on disk, at least 0.01."""
    mismatch_steps: int = Field(default=5, ge=1)
    """Learner steps in a row above max_mismatch_nats that end the run. Steps without such a sequence are not counted."""


class NcclChannel(_Channel):
    """Weights go from GPU to GPU by NCCL; needs device = "cuda"."""

    type: Literal["nccl"] = "nccl"


class GlooChannel(_Channel):
    """Weights go through host memory by gloo; for CPU, and for GPUs that NCCL cannot connect."""

    type: Literal["gloo"] = "gloo"


class HttpChannel(_Channel):
    """Every replica fetches every version from the learner by HTTP, at its own pace: for replicas that are far away, or behind a
    network in which only the learner can be reached."""

    type: Literal["http"] = "http"


WeightsConfig = NcclChannel | GlooChannel | HttpChannel
