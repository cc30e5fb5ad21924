import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import WeightSyncError
from services.weights.buckets import ALIGNMENT_BYTES, check_digest, digest, pack, unpack
from services.wire.codec import decode, encode
from services.wire.weights import Bucket, Gap, Probe, TensorEntry, WeightManifest

shapes = st.lists(st.integers(0, 700), min_size=0, max_size=3).filter(lambda shape: torch.Size(shape).numel() < 400_000)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(shapes, dtypes), max_size=12))
def test_what_is_packed_comes_out_again_bit_for_bit(parameters: list[tuple[list[int], torch.dtype]]) -> None:
    tensors = {f"layer.{i}": (torch.randn(shape) * 50).to(dtype) for i, (shape, dtype) in enumerate(parameters)}
    received: dict[str, torch.Tensor] = {}
    for bucket, flat in pack(list(tensors.items()), bucket_mib=1):
        assert flat.numel() == bucket.size_bytes
        assert bucket.size_bytes <= 2**20 or len(bucket.tensors) == 1
        assert all(entry.offset % ALIGNMENT_BYTES == 0 for entry in bucket.tensors)
        arrived = flat.clone()
        check_digest(bucket, digest(arrived), "1 of 1")
        received.update(unpack(bucket, arrived))
    assert list(received) == list(tensors)
    assert all(torch.equal(received[name], tensor) for name, tensor in tensors.items())
    assert all(received[name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_transposed_weights_arrive_as_they_look() -> None:
    weight = torch.arange(12.0).view(3, 4).t()
    [(bucket, flat)] = pack([("weight", weight)], bucket_mib=1)
    assert torch.equal(dict(unpack(bucket, flat))["weight"], weight)


def test_a_parameter_larger_than_a_bucket_travels_alone() -> None:
    tensors = [("small", torch.zeros(10)), ("large", torch.zeros(2**19)), ("last", torch.zeros(10))]
    assert [[entry.name for entry in bucket.tensors] for bucket, _ in pack(tensors, bucket_mib=1)] == [
        ["small"],
        ["large"],
        ["last"],
    ]


def test_equal_weights_have_equal_digests_whatever_was_in_memory() -> None:
    tensors = [("a", torch.ones(3)), ("b", torch.ones(5))]
    digests = set()
    for _ in range(5):
        torch.full((2**18,), torch.rand(()).item())  # leaves other bytes behind for the next allocation
        digests.add(pack(tensors, bucket_mib=1)[0][0].digest)
    assert len(digests) == 1


def test_one_flipped_bit_is_refused_with_both_digests() -> None:
    [(bucket, flat)] = pack([("weight", torch.ones(1000))], bucket_mib=1)
    flat[17] ^= 1
    with pytest.raises(WeightSyncError, match=f"bucket 2 of 7 .*weight.* announced was {bucket.digest}"):
        check_digest(bucket, digest(flat), "2 of 7")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (TensorEntry("w", "float99", (4,), 0), 'announced as "float99"'),
        (TensorEntry("w", "float32", (40,), 0), "bytes 0..160 of a bucket of 64"),
    ],
)
def test_an_entry_that_does_not_fit_its_bucket_is_refused_by_name(entry: TensorEntry, says: str) -> None:
    with pytest.raises(WeightSyncError, match=f"parameter w is {says}|{says}"):
        list(unpack(Bucket(64, "", (entry,)), torch.zeros(64, dtype=torch.uint8)))


def test_a_manifest_survives_the_wire() -> None:
    buckets = tuple(bucket for bucket, _ in pack([("a", torch.ones(3, 2)), ("b", torch.tensor(1.0))], bucket_mib=1))
    manifest = WeightManifest(
        policy_version=3,
        pg_generation=2,
        buckets=buckets,
        probes=(Probe((1, 2), (-0.5,)),),
        bound=Gap(1e-3, 1e-3, 1e-3),
    )
    assert decode(encode(manifest), WeightManifest) == manifest
