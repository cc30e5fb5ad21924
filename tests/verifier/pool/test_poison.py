"""A short run of benchmarks/verifier/poison.py: what a model in training sends, and what is left of it."""

import sys

import pytest

from benchmarks.verifier.poison import Findings, described, torment
from benchmarks.verifier.poison_items import poison
from tests.verifier.sandbox.machine import sandbox_or_skip

ITEMS, BOMBS, SEED = 300, 10, 5


@pytest.fixture(scope="module")
def found() -> Findings:
    if sys.platform != "linux":
        pytest.skip("what is left of a process is counted in /proc")
    sandbox_or_skip()
    return torment(poison(SEED, ITEMS, BOMBS), SEED)


def test_every_poisoned_item_gets_the_answer_that_it_should(found: Findings) -> None:
    assert [described(one) for one in found.wrong] == []
    assert len(found.answered) == ITEMS
    assert found.run_to_deadline >= BOMBS


def test_healthy_items_are_judged_at_any_time(found: Findings) -> None:
    assert found.unhealthy == []
    assert found.healthy > 0


def test_poison_leaves_no_process_no_file_and_no_memory_behind(found: Findings) -> None:
    missed = [check for check, met in found.checks(ITEMS, BOMBS).items() if not met]
    assert missed == [], (found.before, found.after, found.orphans, found.growth())
