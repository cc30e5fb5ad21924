"""What a broadcast will carry, said before it starts, so that a receiver can check every byte."""

import msgspec

from services.wire.codec import record


class TensorEntry(msgspec.Struct, frozen=True, array_like=True):
    """One parameter under its Hugging Face name."""

    name: str
    dtype: str
    """torch's name without the prefix: float32, bfloat16, ..."""
    shape: tuple[int, ...]
    offset: int
    """Bytes from the start of its bucket."""


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """One collective: a flat byte tensor that holds whole parameters."""

    size_bytes: int
    digest: str
    """xxh3-128 of the bucket's bytes, hexadecimal."""
    tensors: tuple[TensorEntry, ...]


@record("weight-manifest", 1)
class WeightManifest(msgspec.Struct, frozen=True, kw_only=True):
    """One policy version on its way to the members of one generation."""

    policy_version: int
    pg_generation: int
    buckets: tuple[Bucket, ...]
    probe_token_ids: tuple[int, ...]
    """Fixed token sequence that proves equality."""
    probe_logp: tuple[float, ...]
    """The learner's log-prob (nats, temperature 1) of probe tokens 1.. given those before; one fewer than the tokens."""


@record("rendezvous", 1)
class Rendezvous(msgspec.Struct, frozen=True, kw_only=True):
    """Where and as whom the members of a generation meet."""

    pg_generation: int
    backend: str
    """nccl or gloo"""
    host: str
    port: int
    size: int
    """Learner rank 0 is rank 0; every engine worker of every replica is one rank more."""
    first_ranks: dict[str, int]
    """replica_id -> rank of its first engine worker; the others follow."""
    timeout_s: float
