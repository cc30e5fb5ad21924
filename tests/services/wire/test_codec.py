"""Bytes that are not the expected record are refused by name; records survive the way."""

import msgspec
import pytest

from services.errors import WireError
from services.wire.codec import Array, decode, encode
from services.wire.membership import Confirmation, Lease

LEASE = Lease(
    replica_id="rollout-0", incarnation="a", ranks=1, policy_version=3, ready=True, sampling_s=1.5, ready_s=2.0
)


def test_a_record_survives_the_way() -> None:
    assert decode(encode(LEASE), Lease) == LEASE


def test_a_record_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(WireError, match="expected confirmation schema 3, got lease schema 3"):
        decode(encode(LEASE), Confirmation)


def test_a_record_of_another_schema_says_what_to_do() -> None:
    with pytest.raises(WireError, match=r"got lease schema 99; run the same version of ratchet in every service"):
        decode(msgspec.msgpack.encode(("lease", 99, {})), Lease)


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"garbage", msgspec.msgpack.encode(["lease"])])
def test_bytes_that_are_not_a_record_are_refused(raw: bytes) -> None:
    with pytest.raises(WireError, match=f"got {len(raw)} bytes that are not a record"):
        decode(raw, Lease)


def test_a_field_of_the_wrong_type_is_damage() -> None:
    with pytest.raises(WireError, match=r"damaged lease record: .*ranks"):
        decode(msgspec.msgpack.encode(("lease", 3, msgspec.to_builtins(LEASE) | {"ranks": "two"})), Lease)


def test_an_array_survives_the_way() -> None:
    array = Array.of([1, 2, 3], "<i4")
    assert array.numpy().tolist() == [1, 2, 3]
    assert len(array) == 3


def test_an_array_of_an_unknown_type_or_length_is_refused() -> None:
    with pytest.raises(WireError, match='array dtype "<O8" is not one of'):
        Array("<O8", b"12345678").numpy()
    with pytest.raises(WireError, match="array of 5 bytes does not divide into <f4"):
        Array("<f4", b"12345").numpy()
