"""How long the learner goes without a replica that takes its weights."""

import pytest

from learner.publish.patience import Patience
from services.errors import DeadlineExceeded, WeightSyncError

REFUSED = WeightSyncError("refused")


def test_without_any_replica_it_ends_at_the_deadline() -> None:
    patience = Patience(60.0, now_s=100.0)
    patience.without_replica(160.0)
    with pytest.raises(DeadlineExceeded, match=r"a rollout replica to register, 0\.5 s past"):
        patience.without_replica(160.5)


def test_the_time_begins_again_when_the_last_replica_leaves() -> None:
    patience = Patience(60.0, now_s=0.0)
    patience.replica_is_live()
    assert not patience.has_begun
    patience.without_replica(1000.0)
    assert patience.has_begun
    patience.without_replica(1060.0)
    with pytest.raises(DeadlineExceeded):
        patience.without_replica(1061.0)


def test_replicas_that_are_live_and_fail_do_not_stretch_it() -> None:
    patience = Patience(60.0, now_s=0.0)
    patience.confirmed()
    for now_s in range(100, 161, 10):
        patience.replica_is_live()
        patience.failed(REFUSED, float(now_s))
    patience.replica_is_live()
    with pytest.raises(WeightSyncError, match=r"for 61 s \(deadlines.first_replica_s\); last: refused"):
        patience.failed(REFUSED, 161.0)


def test_one_confirmed_broadcast_forgives_every_failure() -> None:
    patience = Patience(60.0, now_s=0.0)
    patience.failed(REFUSED, 50.0)
    patience.confirmed()
    patience.failed(REFUSED, 1000.0)
    patience.confirmed()
    patience.without_replica(2000.0)
    with pytest.raises(DeadlineExceeded):
        patience.without_replica(2061.0)
