"""What happens to the replicas is drawn within bounds, the rate is over all phases, and a short run stands some events."""

import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.events import FEWEST, MOST, Event, Phase, Record, Run, choose, table
from tests.chaos.stage import make_example


@pytest.mark.timeout(180)
def test_replicas_come_and_go_and_nothing_else_is_started_again(tmp_path: Path) -> None:
    make_example()
    record = Run(tmp_path, 3, 0.3).go([4], every_s=0.7, rest_s=2.0)
    assert [event.kind for event in record.events] == [
        event.kind for event in sorted(record.events, key=lambda e: e.at_s)
    ]
    assert len(record.events) == 4
    assert [phase.kind for phase in record.phases] == ["rest", "events", "rest"]
    assert all(phase.steps > 0 for phase in record.phases)
    assert record.restarts == 0
    assert record.audit == "clean"


def test_as_many_come_as_go_and_the_run_is_never_without_replicas() -> None:
    rng, acting, drawn = random.Random(0), 4, Counter[str]()
    for _ in range(3000):
        kind = choose(rng, acting)
        drawn[kind] += 1
        acting += {"join": 1, "suspend": 0}.get(kind, -1)
        assert FEWEST <= acting <= MOST
    assert abs(drawn["join"] - drawn["leave"] - drawn["kill"]) <= MOST
    assert min(drawn.values()) > 300


def test_the_table_compares_all_phases_of_events_with_all_rests() -> None:
    record = Record(
        [Event(1.0, "kill", "rollout-1", 3, 12)],
        [Phase("rest", 10.0, 20), Phase("events", 20.0, 30), Phase("rest", 30.0, 60)],
        audit="clean",
    )
    assert record.to_dict()["ratio"] == pytest.approx(0.75)
    assert "| events | 20 | 30 | 1.50 |" in table(record)
    assert "1 events (1 kill): 0.75 of the steps/s at rest; 0 restarts of anything else; the audit is clean." in table(
        record
    )
