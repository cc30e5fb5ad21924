"""A short soak sees every process and every stream; and what has grown is told from what goes up and down."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.soak import Sample, Soak, descendants, grown, growth, has_grown, memory_bytes, settled, table
from tests.chaos.stage import make_example

SECONDS, EVERY_S = 6.0, 0.5


def sample(at_s: float, memory: Mapping[str, int] | None = None, streams: Mapping[str, int] | None = None) -> Sample:
    return Sample(at_s, 1, memory or {}, streams or {}, 2**20, 2**20)


@pytest.mark.timeout(180)
def test_a_soak_sees_every_process_and_every_stream(tmp_path: Path) -> None:
    make_example()
    soak = Soak(tmp_path, 1, 0.1, is_forked=True)
    soak.go(SECONDS, EVERY_S)
    assert len(soak.samples) >= 0.5 * SECONDS / EVERY_S
    last = soak.samples[-1]
    assert {"Redis", "learner", "rollout-0", "verifier", "verifier's children"} <= last.memory_bytes.keys()
    assert all(value > 2**20 for value in last.memory_bytes.values())
    assert {"prompts", "trajectories", "scored", "weights", "confirmations"} <= last.streams.keys()
    assert last.steps > soak.samples[0].steps
    assert last.redis_bytes > 0
    assert soak.audit == "clean"
    assert "| learner |" in table(soak.samples)


def test_growth_is_that_after_a_start() -> None:
    warms_up = [10.0] * 10 + [100.0] * 30
    assert growth(warms_up, 10) == 0.0
    assert growth([100.0] * 10 + [100.0 + step for step in range(30)], 10) == pytest.approx(0.27, abs=0.02)
    assert growth([1.0] * 5, 1) is None


def test_a_run_settles_in_a_quarter_of_an_hour_or_of_itself_where_that_is_shorter() -> None:
    assert settled([sample(10.0 * at) for at in range(720)]) == 90
    assert settled([sample(10.0 * at) for at in range(40)]) == 10


def test_a_stream_that_goes_up_and_down_has_not_grown() -> None:
    assert not has_grown([0, 4, 8, 12] * 10)
    assert has_grown([length // 2 for length in range(40)])


def test_what_grew_is_named() -> None:
    samples = [
        sample(10.0 * at, {"learner": (100 + at) * 2**20, "Redis": 2**20}, {"prompts": 12, "dead": at})
        for at in range(40)
    ]
    assert grown(samples) == ["learner", "dead"]
    assert "| learner | 110.0 MiB | 139.0 MiB | +23.3 % |" in table(samples)
    assert "| dead | 19 | 34.5 | yes |" in table(samples)


def test_memory_and_children_of_this_process_are_found() -> None:
    found = memory_bytes(os.getpid())
    assert found is not None
    assert found > 2**20
    assert os.getpid() in descendants(os.getppid())
    assert memory_bytes(2**22 + 1) is None
