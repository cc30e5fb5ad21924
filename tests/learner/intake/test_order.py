"""Groups go into steps as they arrive, or in the order of their numbers, with a bounded number that overtake."""

from collections import deque

import pytest

from learner.batch.sift import SiftedGroup, sift
from learner.intake.order import Turns, window_of
from services.config.learner import LearnerConfig
from services.wire.score import ScoredGroup
from tests.learner.tiny import scored_group

SETTINGS = LearnerConfig(steps=9, groups_per_step=4, max_lag=1)


class Arrivals:
    """What has arrived, and which numbers are settled."""

    def __init__(self, window: int | None) -> None:
        self.ready: deque[ScoredGroup] = deque()
        self.settled: set[int] = set()
        self.turns = Turns(
            lambda: self.ready.popleft() if self.ready else None,
            lambda group, version: sift(group, version, SETTINGS),
            lambda number: number in self.settled,
            window,
        )

    def arrive(self, *numbers: int, equal: bool = False, version: int = 0) -> None:
        rewards = [1.0, 1.0] if equal else [1.0, 0.0]
        for number in numbers:
            versions = [[(version, 2)]] * 2
            self.ready.append(scored_group(number, rewards=rewards, versions=versions, responses=[[1, 2]] * 2))

    def taken(self, version: int = 0) -> list[int]:
        """Everything that goes now."""
        return [one.prompt.sequence_number for one in self.went(version)]

    def went(self, version: int = 0) -> list[SiftedGroup]:
        found = []
        while (taken := self.turns.next(version)) is not None:
            found.append(taken[1])
        return found


def test_by_default_they_go_as_they_come() -> None:
    arrivals = Arrivals(None)
    arrivals.arrive(3, 1)
    assert arrivals.taken() == [3, 1]
    arrivals.arrive(0)
    assert arrivals.taken() == [0]


def test_in_order_of_dispatch_they_wait_for_the_oldest() -> None:
    arrivals = Arrivals(0)
    arrivals.arrive(2, 1)
    assert arrivals.taken() == []
    assert (arrivals.turns.waiting, arrivals.turns.oldest) == (2, 0)
    arrivals.arrive(0)
    assert arrivals.taken() == [0, 1, 2]
    assert (arrivals.turns.waiting, arrivals.turns.oldest) == (0, 3)


def test_what_died_or_was_settled_is_not_waited_for() -> None:
    arrivals = Arrivals(0)
    arrivals.settled = {0, 1}
    arrivals.arrive(3, 2)
    assert arrivals.taken() == [2, 3]
    arrivals.arrive(5)
    assert arrivals.taken() == []
    arrivals.settled.add(4)
    assert arrivals.taken() == [5]


def test_what_is_dropped_goes_at_once_and_overtakes_nobody() -> None:
    arrivals = Arrivals(1)
    arrivals.arrive(2, 3, equal=True)
    arrivals.arrive(1)
    went = arrivals.went()
    assert [(one.prompt.sequence_number, one.drop) for one in went] == [
        (2, "zero_variance"),
        (3, "zero_variance"),
        (1, None),
    ]
    arrivals.arrive(4)
    assert arrivals.taken() == []  # 1 has overtaken 0
    arrivals.arrive(0)
    assert arrivals.taken() == [0, 4]


def test_a_window_lets_that_many_past_the_oldest_and_does_not_move_on_without_it() -> None:
    arrivals = Arrivals(2)
    arrivals.arrive(5, 3, 1, 2)
    assert arrivals.taken() == [1, 2]
    arrivals.arrive(0)
    assert arrivals.taken() == [0, 3, 5]  # 5 is past 4, and that is one
    arrivals.arrive(6, 7)
    assert arrivals.taken() == [6]


def test_a_group_that_was_dead_and_comes_back_goes_at_once() -> None:
    arrivals = Arrivals(0)
    arrivals.settled = {0, 1}
    arrivals.arrive(2)
    assert arrivals.taken() == [2]
    arrivals.settled.discard(0)
    arrivals.arrive(0)
    assert arrivals.taken() == [0]


def test_a_group_that_waited_is_measured_by_the_step_that_it_goes_into() -> None:
    arrivals = Arrivals(0)
    arrivals.arrive(1, version=0)
    assert arrivals.taken(1) == []
    arrivals.arrive(0, version=1)
    assert [one.drop for one in arrivals.went(2)] == [None, "stale"]


@pytest.mark.parametrize(
    ("given", "window"),
    [({}, None), ({"order": "dispatch"}, 0), ({"order": "dispatch", "window_fraction": 0.3}, 2)],
)
def test_the_window_is_a_fraction_of_what_may_be_outstanding(given: dict[str, object], window: int | None) -> None:
    assert window_of(LearnerConfig.model_validate({**SETTINGS.model_dump(), **given})) == window
