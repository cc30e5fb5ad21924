"""What becomes of an item whose grader process ended: the response pays only when its reference answer alone is fine."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from services.wire.verdict import Score
from verifier.contract import ScoreItem
from verifier.grader import Judgment
from verifier.pool.attribution import CRASHES, UNEXPLAINED_ENDS, Attribution
from verifier.pool.blame import Finding, Kind
from verifier.pool.protocol import GradeResult
from verifier.pool.work_item import Batch, WorkItem
from verifier.scores import no_verdict, scored

PASSED = GradeResult(scored(Judgment(True), 0.0))
FAILED = GradeResult(no_verdict("cannot be read"))


def work_item(reference: Any = "12") -> WorkItem:
    async def make() -> WorkItem:  # a batch belongs to a loop
        return WorkItem(Batch(1), 0, ScoreItem("a", "exact", "x" * 9, reference), "")

    making: Coroutine[Any, Any, WorkItem] = make()
    return asyncio.run(making)


def finding(kind: Kind) -> Finding:
    return Finding(0, kind, f"it was {kind}")


def test_a_result_is_the_items_score() -> None:
    item = work_item()
    assert not item.task.reference_only
    assert Attribution().result(item, FAILED) is FAILED.score


@pytest.mark.parametrize("kind", ["busy", "memory"])
def test_the_reference_is_checked_first_and_the_response_blamed_when_it_passes(kind: Kind) -> None:
    attribution, item = Attribution(), work_item()
    assert attribution.at_fault(item, finding(kind), 3.0) is None
    assert item.task.reference_only
    assert item.task.item.response == ""
    score = attribution.result(item, PASSED)
    assert score is not None
    assert (score.verdict, score.reward, score.elapsed_s) == ("incorrect", 0.0, 3.0)
    assert score.detail == f"it was {kind}; its reference alone is fine"


def test_a_reference_that_fails_alone_makes_it_an_error() -> None:
    attribution = Attribution()
    failures: tuple[Callable[[WorkItem], Score | None], ...] = (
        lambda item: attribution.result(item, FAILED),
        lambda item: attribution.result(item, GradeResult(no_verdict("too much"), out_of_memory=True)),
        lambda item: attribution.at_fault(item, finding("busy"), 1.0),
    )
    for fails in failures:
        item = work_item()
        assert attribution.at_fault(item, finding("busy"), 3.0) is None
        score = fails(item)
        assert score is not None
        assert (score.verdict, score.reward) == ("error", None)
        assert score.detail.startswith("it was busy; its reference alone: ")


def test_a_reference_is_checked_once() -> None:
    attribution = Attribution()
    attribution.at_fault(first := work_item(), finding("busy"), 1.0)
    attribution.result(first, PASSED)
    score = attribution.at_fault(work_item(), finding("busy"), 1.0)
    assert score is not None
    assert score.verdict == "incorrect"
    assert attribution.at_fault(work_item("13"), finding("busy"), 1.0) is None


def test_a_starved_process_costs_the_response_nothing_and_an_unclear_end_gets_a_second_look() -> None:
    attribution, item = Attribution(), work_item()
    score = attribution.at_fault(work_item(), finding("starved"), 5.0)
    assert score is not None
    assert (score.verdict, score.elapsed_s) == ("timeout", 5.0)
    assert attribution.at_fault(item, finding("unclear"), 5.0) is None
    assert item.second_look
    assert not item.task.reference_only
    assert attribution.at_fault(item, finding("unclear"), 5.0) is None
    assert item.task.reference_only


def test_one_crash_may_be_an_accident() -> None:
    attribution, item = Attribution(), work_item()
    for _ in range(CRASHES - 1):
        assert attribution.at_fault(item, finding("crashed"), 1.0) is None
        assert not item.task.reference_only
    assert attribution.at_fault(item, finding("crashed"), 1.0) is None
    assert item.task.reference_only


def test_ends_that_nothing_explains_are_an_error_in_the_end() -> None:
    attribution, item = Attribution(), work_item()
    assert [attribution.unexplained(item, "signal SIGKILL") for _ in range(UNEXPLAINED_ENDS - 1)] == [None, None]
    score = attribution.unexplained(item, "signal SIGKILL")
    assert score is not None
    assert score.verdict == "error"
    assert "3 grader processes ended" in score.detail
