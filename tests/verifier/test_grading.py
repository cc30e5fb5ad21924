"""From items to scores: what no grader sees, and which lane judges the rest."""

import asyncio

import pytest

from services.config.verifier import VerifierConfig
from services.wire.verdict import Score
from tests.verifier.bad_graders import REGISTRY
from verifier.contract import ScoreItem
from verifier.grading import open_grading
from verifier.network.endpoints import Endpoints
from verifier.registry import Entry

ENTRIES = {
    "odd": Entry("odd", REGISTRY["odd"]),
    "remote": Entry("remote", "verifier.graders.remote:Remote", lane="network"),
    "combine": Entry("combine", REGISTRY["combine"], lane="parts"),
    "broken": Entry("broken", "nowhere:Nothing", fault="ModuleNotFoundError: nowhere"),
}
SETTINGS = VerifierConfig.model_validate({"processes": 1, "limits": {"odd": {"response_characters": 100}}})


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    items = [
        ScoreItem("a", "odd", "right", "right"),
        ScoreItem("b", "remote", "right", "right"),
        ScoreItem("c", "combine", "right", "right", {"parts": [{"grader": "odd"}]}),
        ScoreItem("d", "broken", "right", "right"),
        ScoreItem("e", "odd", "x" * 101, "right"),
        ScoreItem("f", "combine", "right", "right", {"parts": [{"grader": "broken"}]}),
    ]

    async def main() -> list[Score]:
        async with Endpoints({}) as endpoints, open_grading(SETTINGS, endpoints, None, ENTRIES) as grading:
            found = await grading.score(items)
            assert grading.queued_items == 0
            return found

    return asyncio.run(main())


def test_each_item_is_judged_in_its_lane(scores: list[Score]) -> None:
    assert [score.verdict for score in scores[:3]] == ["correct", "error", "correct"]
    assert 'no endpoint "remote"' in scores[1].detail


def test_a_grader_that_cannot_be_used_and_a_response_that_is_too_long_reach_no_grader(scores: list[Score]) -> None:
    assert [score.verdict for score in scores[3:]] == ["error", "incorrect", "error"]
    assert scores[3].detail == scores[5].detail == "grader broken cannot be used: ModuleNotFoundError: nowhere"
    assert scores[4].detail == "101 characters are more than the 100 allowed"
