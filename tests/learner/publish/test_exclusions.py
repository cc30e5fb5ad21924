"""A replica at which a broadcast failed is left out, longer each time, and is never given up."""

import pytest

from learner.publish.exclusions import FORGOTTEN_S, LONGEST_S, MENDED, Exclusions
from services.wire.membership import Lease
from tests.learner.publish.control_plane import lease


def live(*replica_ids: str, incarnation: str = "1") -> dict[str, Lease]:
    return {replica_id: lease(replica_id, incarnation) for replica_id in replica_ids}


def test_each_failure_in_a_row_doubles_the_time_up_to_a_bound() -> None:
    exclusions, now_s = Exclusions(first_s=15.0), 0.0
    seconds = []
    for _ in range(10):
        seconds.append(exclusions.blame({"a": "1"}, now_s)["a"])
        assert set(exclusions.trusted(live("a", "b"), now_s + seconds[-1] - 0.1)) == {"b"}
        now_s += seconds[-1]
        assert set(exclusions.trusted(live("a", "b"), now_s)) == {"a", "b"}
    assert seconds[:4] == [15.0, 30.0, 60.0, 120.0]
    assert seconds[-1] == LONGEST_S


def test_a_confirmed_broadcast_ends_the_row() -> None:
    exclusions = Exclusions(first_s=15.0)
    for _ in range(3):
        exclusions.blame({"a": "1"}, 0.0)
    exclusions.clear({"a"})
    assert exclusions.blame({"a": "1"}, 0.0) == {"a": 15.0}


def test_those_blamed_together_come_back_one_after_the_other_the_least_suspect_first() -> None:
    exclusions = Exclusions(first_s=1.0)
    exclusions.blame({"a": "1"}, 0.0)
    together = exclusions.blame({"a": "1", "b": "1", "c": "1"}, 10.0)
    assert together == pytest.approx({"b": 1.0, "c": 2.0, "a": 4.0})
    assert set(exclusions.trusted(live("a", "b", "c"), 12.5)) == {"b", "c"}


def test_a_replica_that_started_anew_is_tried_at_once_and_not_forgiven() -> None:
    exclusions = Exclusions(first_s=15.0)
    exclusions.blame({"a": "1"}, 0.0)
    assert set(exclusions.trusted(live("a", incarnation="2"), 0.1)) == {"a"}
    assert exclusions.blame({"a": "2"}, 0.1) == {"a": 30.0}


def test_a_replica_that_caught_up_by_itself_comes_back_sooner_and_its_failures_still_count() -> None:
    exclusions = Exclusions(first_s=15.0)
    for _ in range(3):
        exclusions.blame({"a": "1"}, 0.0)  # left out until 60 s
    exclusions.shorten("a", "of another start", 10.0)
    exclusions.shorten("b", "1", 10.0)
    assert not exclusions.trusted(live("a"), 59.0)
    exclusions.shorten("a", "1", 10.0)
    assert not exclusions.trusted(live("a"), 24.9)
    assert set(exclusions.trusted(live("a"), 25.0)) == {"a"}
    exclusions.shorten("a", "1", 24.0)
    assert set(exclusions.trusted(live("a"), 25.0)) == {"a"}  # and not longer than before
    assert exclusions.blame({"a": "1"}, 25.0) == {"a": 120.0}


def test_one_that_fails_in_the_group_again_and_again_waits_although_it_catches_up() -> None:
    exclusions = Exclusions(first_s=1.0)
    for _ in range(MENDED + 1):
        exclusions.blame({"a": "1"}, 0.0)
    exclusions.shorten("a", "1", 0.0)
    assert not exclusions.trusted(live("a"), 2.0**MENDED - 0.1)


def test_those_blamed_together_still_come_back_one_after_the_other() -> None:
    exclusions = Exclusions(first_s=1.0)
    exclusions.blame({"a": "1", "b": "1", "c": "1"}, 0.0)
    for replica_id in "abc":
        exclusions.shorten(replica_id, "1", 0.0)
    assert set(exclusions.trusted(live("a", "b", "c"), 2.5)) == {"a", "b"}


def test_replicas_that_never_came_back_are_forgotten() -> None:
    exclusions = Exclusions(first_s=15.0)
    for _ in range(2):
        exclusions.blame({"a": "1"}, 0.0)
    assert exclusions.blame({"b": "1"}, 30.0 + FORGOTTEN_S) == {"b": 15.0}
    assert exclusions.blame({"a": "1"}, 30.0 + FORGOTTEN_S) == {"a": 15.0}
