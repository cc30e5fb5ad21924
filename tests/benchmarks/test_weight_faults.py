"""Replicas in processes of their own are suspended and killed, and the learner goes on; with a short lease, in a small run."""

from pathlib import Path

from benchmarks.weight_faults import report

SUSPENDED_S = 4.0
LEASE_S = 1.0


def test_no_fault_holds_the_learner_up_for_as_long_as_it_lasts(tmp_path: Path) -> None:
    rows = report(1, 0.05, SUSPENDED_S, LEASE_S, tmp_path)["rows"]
    assert list(rows) == [
        "a replica is suspended",
        "a replica is killed",
        "a replica dies at a swap",
        "FLUSHALL",
        "Ctrl-C while a replica is suspended",
    ]
    assert rows["a replica is suspended"]["stood_still_s"] < SUSPENDED_S - 1.0  # the lease is what it waits for
    assert rows["a replica is suspended"]["steps_meanwhile"] > 3
    for name in ("a replica is killed", "a replica dies at a swap"):
        assert rows[name]["stood_still_s"] < LEASE_S + 4.0
    assert rows["FLUSHALL"]["stood_still_s"] < 20.0
    assert rows["Ctrl-C while a replica is suspended"]["stopped_after_s"] < 10.0
