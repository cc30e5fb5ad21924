"""What a broadcast will carry, announced before it starts, so that a receiver can check every byte."""

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
    """A flat byte tensor that holds whole parameters and travels in one collective."""

    size_bytes: int
    digest: str
    """xxh3-128 of the bucket's bytes, in hexadecimal."""
    tensors: tuple[TensorEntry, ...]


WORTH_RATIO = 0.5
"""What changed in a bucket is sent where it takes at most this share of the whole bucket's bytes. Comparing and putting together
costs both ends processor time, and is to be worth it."""


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """What changed in a bucket since another version of it, which travels in its place (services/weights/delta.py)."""

    base: str
    """The digest of the bucket that it has to be put on."""
    size_bytes: int
    digest: str
    """xxh3-128 of the delta's own bytes."""


class WeightSource(msgspec.Struct, frozen=True, array_like=True):
    """Where versions can be fetched by HTTP."""

    url: str
    """The address of the learner's weight server, without a slash at its end."""
    token: str
    """What the server wants to be shown."""


class Gap(msgspec.Struct, frozen=True, array_like=True):
    """How far two lists of log-probs of the same tokens are apart, in nats, or how far they may be. Infinite where a difference
    is not a number, or the lists are not equally long."""

    mean_nats: float
    """Mean of the absolute differences."""
    high_nats: float
    """Nine in ten differences are at most this."""
    largest_nats: float


class Probe(msgspec.Struct, frozen=True, array_like=True):
    """A fixed token sequence whose log-probs prove that weights are equal."""

    token_ids: tuple[int, ...]
    logp: tuple[float, ...]
    """The learner's log-probs of the tokens but the first, each given those before it, in nats at temperature 1."""
    disk_logp: tuple[float, ...] = ()
    """The same under the weights that the run was started with, on disk: what a replica that has not swapped yet is compared
    with. Empty where they are not known."""


@record("weight-manifest", 4)
class WeightManifest(msgspec.Struct, frozen=True, kw_only=True):
    """One policy version on its way to the members of one generation."""

    policy_version: int
    pg_generation: int
    buckets: tuple[Bucket, ...]
    probes: tuple[Probe, ...]
    """The second, of other tokens, is for when the first says that weights differ."""
    bound: Gap
    """A replica whose last probe differs from the learner's by more than this, in any of the three, does not sample."""
    deltas: tuple[Delta | None, ...] = ()
    """For each bucket what travels in its place, None where it travels whole; () where all do."""
    source: WeightSource | None = None
    """Where a member of the group fetches a bucket whose base it does not hold; given with deltas."""


@record("rendezvous", 2)
class Rendezvous(msgspec.Struct, frozen=True, kw_only=True):
    """Where the members of a generation meet, and which ranks they have."""

    learner: str = ""
    """A name that differs each time the learner starts. A generation is known by this name and its number."""
    pg_generation: int
    backend: str
    """"nccl", "gloo", or "http": the members meet nowhere, and fetch each version for themselves."""
    host: str
    port: int
    size: int
    """The number of ranks: learner rank 0, which is rank 0, and one for each engine worker of each replica."""
    first_ranks: dict[str, int]
    """replica_id -> rank of its first engine worker; its other workers follow."""
    timeout_s: float
    """Seconds in which all members have to join."""


@record("weight-offer", 2)
class WeightOffer(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica fetches the newest version by itself, and which replicas are to. Renewed as long as the learner runs."""

    learner: str
    """See Rendezvous."""
    source: WeightSource
    policy_version: int
    """The newest version."""
    pg_generation: int
    """The last generation that was announced."""
    alone: dict[str, str]
    """replica_id -> incarnation of the replicas that no broadcast reaches now: each fetches this version, unless it holds it."""
