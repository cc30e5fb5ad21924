"""The announcements of the weights survive the way."""

import msgspec

from services.wire.codec import decode, encode
from services.wire.weights import Bucket, Delta, Gap, Probe, Rendezvous, TensorEntry, WeightManifest, WeightSource

MANIFEST = WeightManifest(
    policy_version=7,
    pg_generation=2,
    buckets=(Bucket(16, "abcd", (TensorEntry("lm_head.weight", "bfloat16", (2, 4), 0),)),),
    probes=(Probe((1, 2, 3), (-0.5, -1.25)),),
    bound=Gap(1e-3, 2e-3, 3e-3),
    deltas=(Delta("abcc", 5, "ef"), None),
    source=WeightSource("http://h:1", "t"),
)


def test_a_manifest_survives_the_way() -> None:
    assert decode(encode(MANIFEST), WeightManifest) == MANIFEST


def test_a_tensor_travels_without_the_names_of_its_fields() -> None:
    """A model has thousands of them."""
    assert msgspec.msgpack.decode(encode(MANIFEST))[2]["buckets"] == [
        [16, "abcd", [["lm_head.weight", "bfloat16", [2, 4], 0]]]
    ]


def test_a_rendezvous_survives_the_way() -> None:
    rendezvous = Rendezvous(
        pg_generation=2, backend="gloo", host="h", port=1, size=3, first_ranks={"a": 1, "b": 2}, timeout_s=5.0
    )
    assert decode(encode(rendezvous), Rendezvous) == rendezvous
