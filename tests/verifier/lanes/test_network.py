"""Graders that ask another service: anything that they raise is an error of that item alone."""

import asyncio
from typing import Any

import pytest

from services.wire.verdict import Score
from verifier.contract import ScoreItem
from verifier.grader import Judgment, ScoringFault
from verifier.lanes.network import NetworkLane
from verifier.network.endpoints import Endpoints
from verifier.network.grader import NetworkGrader


class Telephone(NetworkGrader, frozen=True):
    number: str = "0"

    def check(self, reference: Any) -> None:
        pass

    def cache_salt(self, endpoints: Endpoints) -> str:
        return self.number

    async def score(self, response: str, reference: Any, endpoints: Endpoints) -> Judgment:
        await asyncio.sleep(0.01)
        if response == "fault":
            raise ScoringFault("nobody answers")
        if response == "bug":
            raise RuntimeError("wrong number")
        return Judgment(response == reference)


def item(response: str, **options: Any) -> ScoreItem:
    return ScoreItem("a", "telephone", response, "right", options)


def scores(*items: ScoreItem) -> list[Score]:
    async def main() -> list[Score]:
        async with Endpoints({}) as endpoints:
            lane = NetworkLane({"telephone": Telephone}, endpoints)
            judging = asyncio.create_task(lane.score(items))
            await asyncio.sleep(0)
            assert lane.queued_items == len(items)
            found = await judging
            assert lane.queued_items == 0
            return found

    return asyncio.run(main())


def test_each_item_has_its_own_score(caplog: pytest.LogCaptureFixture) -> None:
    found = scores(item("right"), item("wrong"), item("fault"), item("bug"), item("right", name="Ada"))
    assert [one.verdict for one in found] == ["correct", "incorrect", "error", "error", "error"]
    assert found[2].detail == "nobody answers"
    assert found[3].detail == "grader telephone failed: RuntimeError: wrong number"
    assert "unknown options name" in found[4].detail
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["grader telephone failed"]


def test_the_salt_is_that_of_the_grader_with_its_options() -> None:
    async def main() -> str:
        async with Endpoints({}) as endpoints:
            return NetworkLane({"telephone": Telephone}, endpoints).cache_salt(item("right", number="7"))

    assert asyncio.run(main()) == "7"
    assert Telephone.lane == "network"
