"""What replicas say of themselves survives the way."""

from services.wire.codec import decode, encode
from services.wire.membership import Confirmation


def test_a_confirmation_survives_the_way() -> None:
    refused = Confirmation(
        replica_id="a", incarnation="1", phase="swapped", pg_generation=2, policy_version=7, fault="digest"
    )
    assert decode(encode(refused), Confirmation) == refused


def test_a_confirmation_without_a_fault_says_so() -> None:
    joined = Confirmation(replica_id="a", incarnation="1", phase="joined", pg_generation=2, policy_version=7)
    assert joined.fault is None
    assert joined.gap is None
