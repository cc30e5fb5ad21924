"""A small fleet of real processes is looked at, and what a replica costs is read off the rows."""

from pathlib import Path

import pytest

from benchmarks.scaling import Row, measured, overhead, table
from services.command.balance import Idle


def row(replicas: int, groups_per_s: float, steps_per_s: float) -> Row:
    ms = 2.0 * groups_per_s / replicas + 5.0 * steps_per_s + 11.0
    used = {"replica": ms, "verifier": 1.0, "redis": 1.0, "learner": 1.0}
    return Row(replicas, 1, 1.0, groups_per_s, steps_per_s, Idle(0.5, 0.5, replicas), used, "")


def test_the_costs_of_a_replica_come_out_of_the_rows() -> None:
    rows = [row(1, 9.0, 0.3), row(2, 18.0, 0.6), row(4, 36.0, 1.2), row(1, 4.5, 0.15)]
    assert overhead(rows) == pytest.approx({"group": 2.0, "sync": 5.0, "second": 11.0})
    assert "| 4 | 1 | 1 | 36.0 | 4.00 | 1.20 | 0.50 | 0.50 | 35 |" in table(rows)


def test_one_replica_gives_what_its_pace_allows_and_every_process_is_seen(tmp_path: Path) -> None:
    found = measured(
        tmp_path, replicas=1, ranks=1, group_s=0.5, seconds=6.0
    )  # Redis takes 4 ms a second, and a tick has 10
    assert 0 < found.groups_per_s <= 2 * (8 + 2) * 1.3  # eight held and the next ones ahead, twice a second
    assert found.steps_per_s > 0
    assert all(ms > 0 for ms in found.processor_ms_per_s.values())
    assert found.idle.replicas == 1
    assert found.says
