"""What changed in a bucket, put on the bucket of before, is the bucket of now, bit for bit; what cannot be that is refused."""

import contextlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.weights import delta
from services.weights.buckets import Damaged, lay_out, pack
from services.wire.weights import WORTH_RATIO, Bucket

DTYPES = [
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.float8_e4m3fn,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.int64,
    torch.complex64,
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks in a bucket of a few kB, and samples of it."""
    monkeypatch.setattr(delta, "BLOCK_UNITS", 512)
    monkeypatch.setattr(delta, "SAMPLED_FROM", 4096)
    monkeypatch.setattr(delta, "SAMPLED_ROW", 8)


def one(*tensors: tuple[str, torch.Tensor]) -> tuple[Bucket, torch.Tensor]:
    [(bucket, flat)] = pack(tensors, bucket_mib=64)
    return bucket, flat


def of_bytes(generator: torch.Generator, size: int) -> torch.Tensor:
    """Bytes of every kind: as floats, NaN with payloads, both zeros, infinities and denormal numbers are among them."""
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)


@given(
    units=st.integers(0, 5000),
    unit=st.sampled_from([1, 2, 4, 8]),
    share=st.sampled_from([0.0, 0.0005, 0.01, 0.1, 0.13, 0.3, 0.9, 1.0]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None, database=None)
def test_what_changed_put_on_the_version_before_is_the_version_of_now(
    units: int, unit: int, share: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    base, now = of_bytes(generator, units * unit), of_bytes(generator, units * unit)
    same = torch.rand(units, generator=generator) >= share
    now.view(units, unit)[same] = base.view(units, unit)[same]
    encoded = delta.encode(base, now, unit)
    if encoded is None:
        return
    assert encoded.numel() <= WORTH_RATIO * now.numel()
    delta.apply(encoded, base)
    assert torch.equal(base, now)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 255, 4095, 20_001])
def test_every_dtype_comes_out_as_it_went_in(dtype: torch.dtype, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    raw = of_bytes(generator, size * dtype.itemsize)
    if dtype is torch.bool:
        raw &= 1
    before = raw.clone().view(dtype)
    changed = torch.rand(size, generator=generator) < 0.02
    raw.view(size, dtype.itemsize)[changed] ^= 1
    (bucket, base), (_, now) = one(("w", before)), one(("w", raw.view(dtype)))
    encoded = delta.encode(base, now, delta.unit_bytes(bucket))
    if encoded is None:
        assert size < 4096  # a bucket so small is sent whole: the header is more than half of it
        return
    delta.apply(encoded, base)
    assert torch.equal(base, now)


def test_zeros_of_either_sign_and_nan_of_any_payload_are_told_apart() -> None:
    before = torch.zeros(6000, dtype=torch.bfloat16)
    after = before.clone()
    after[3] = -0.0
    after.view(torch.int16)[4] = 0x7FC1  # two NaN, of other bits
    before.view(torch.int16)[4] = 0x7FC0
    before.view(torch.int16)[5] = after.view(torch.int16)[5] = 0x7FC5  # the same NaN: nothing changed
    (bucket, base), (_, now) = one(("w", before)), one(("w", after))
    encoded = delta.encode(base, now, delta.unit_bytes(bucket))
    assert encoded is not None
    delta.apply(encoded, base)
    assert torch.equal(base, now)
    assert encoded.numel() == smallest(6000) + 8 + 8  # two places and two values, each with what fills eight bytes


def smallest(units: int) -> int:
    """Bytes of the delta of a bucket in which nothing changed."""
    nothing = torch.zeros(2 * units, dtype=torch.uint8)
    encoded = delta.encode(nothing, nothing, 2)
    assert encoded is not None
    return encoded.numel()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (0, "gaps, 8 bits"),
        (2, "gaps, 16 bits"),  # in a block of 65,536: entries of 8 bits would take 255 for all that lies between
        (3000, "gaps, 8 bits"),
        (20_000, "mask"),
        (65_536, "whole"),
    ],
)
def test_a_block_takes_the_form_in_which_it_is_smallest(
    changed: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "BLOCK_UNITS", 65_536)
    monkeypatch.setattr(delta, "SAMPLED_FROM", 2**30)
    units = 10 * 65_536  # nine blocks without a change keep the delta below its bound
    base = torch.zeros(units, dtype=torch.int16)
    now = base.clone()
    if changed:
        now[torch.linspace(0, 65_535, changed).long()] = 7
    encoded = delta.encode(base.view(torch.uint8), now.view(torch.uint8), 2)
    assert encoded is not None
    [form] = encoded[16:20].view(torch.int32).tolist()
    assert ["gaps, 8 bits", "gaps, 16 bits", "mask", "whole"][form] == expected
    ways = {"gaps, 8 bits": changed, "gaps, 16 bits": 2 * changed, "mask": 65_536 // 8, "whole": 0}
    if changed:
        body = encoded.numel() - delta_overhead(10)
        assert body <= ways[expected] + 2 * changed + 16 + 255
    result = base.view(torch.uint8).clone()
    delta.apply(encoded, result)
    assert torch.equal(result, now.view(torch.uint8))


def delta_overhead(blocks: int) -> int:
    return 4 * (delta.HEADER_INTS + delta.TABLE_INTS * blocks)


def test_a_bucket_that_changed_all_over_goes_out_whole_and_a_sample_is_enough_to_see_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, now = torch.zeros(40_000, dtype=torch.uint8), torch.ones(40_000, dtype=torch.uint8)
    assert delta.encode(base, now, 2) is None
    monkeypatch.setattr(delta, "_block", None)  # would be called if the sample did not say so
    assert delta.encode(base, now, 2) is None


def test_what_the_sample_missed_is_found_while_it_is_put_together() -> None:
    base = torch.zeros(40_960, dtype=torch.uint8)
    now = torch.ones(40_960, dtype=torch.uint8)
    now.view(torch.int16).view(-1, 8)[::64] = 0  # the sampled rows
    assert delta.encode(base, now, 2) is None


def test_the_unit_is_the_smallest_of_the_dtypes_in_the_bucket() -> None:
    def unit(*dtypes: torch.dtype) -> int:
        [bucket] = lay_out([(str(dtype), torch.empty(3, dtype=dtype, device="meta")) for dtype in dtypes], 1)
        return delta.unit_bytes(bucket)

    assert unit(torch.float32) == 4
    assert unit(torch.float32, torch.bfloat16) == 2
    assert unit(torch.complex128) == 8
    assert unit(torch.float64, torch.float8_e5m2, torch.bfloat16) == 1
    assert delta.unit_bytes(Bucket(0, "", ())) == 1


@given(
    place=st.integers(0, 10_000),
    value=st.integers(0, 255),
    cut=st.integers(0, 400),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=300, deadline=None, database=None)
def test_bytes_that_are_not_a_delta_of_this_bucket_are_refused_or_leave_its_size(
    place: int, value: int, cut: int, seed: int
) -> None:
    """They cannot get here, because a delta has a digest of its own. If they did, nothing beside the bucket would be touched."""
    generator = torch.Generator().manual_seed(seed)
    base = of_bytes(generator, 8000)
    now = base.clone()
    now[torch.randint(0, 8000, (60,), generator=generator)] += 1
    encoded = delta.encode(base, now, 2)
    assert encoded is not None
    damaged = encoded[: encoded.numel() - cut].clone()
    if damaged.numel():
        damaged[place % damaged.numel()] = value
    memory = torch.zeros(8000 + 2 * 64, dtype=torch.uint8)
    memory[64:-64] = base
    with contextlib.suppress(Damaged):
        delta.apply(damaged, memory[64:-64])
    assert not memory[:64].any()
    assert not memory[-64:].any()


def test_a_delta_of_a_bucket_of_another_size_is_refused() -> None:
    nothing = torch.zeros(20_000, dtype=torch.uint8)
    encoded = delta.encode(nothing, nothing, 2)
    assert encoded is not None
    for size in (0, 2, 10_000, 20_001, 40_000):
        with pytest.raises(Damaged, match="cannot be read: "):
            delta.apply(encoded, torch.zeros(size, dtype=torch.uint8))
