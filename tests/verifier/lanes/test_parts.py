"""Graders that ask other graders: what is asked in which round, and what becomes of the answers."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.wire.verdict import Score
from verifier.contract import ScoreItem
from verifier.grader import Judgment
from verifier.graders.combine import Combine
from verifier.lanes.parts import PartsLane
from verifier.scores import no_verdict, scored

GATE = {"grader": "format", "gate": True}
MATH = {"grader": "math"}
TIMEOUT = Score(verdict="timeout", reward=None, detail="slow", elapsed_s=1.0)


def item(response: str, *parts: dict[str, Any], reference: Any = "12", **options: Any) -> ScoreItem:
    return ScoreItem("a", "combine", response, reference, {"parts": list(parts), **options})


def judged(*items: ScoreItem, answers: dict[str, Score] | None = None) -> tuple[list[Score], list[list[str]]]:
    """The scores, and the graders that were asked in each round. A part is judged by its response or its grader."""
    rounds: list[list[str]] = []

    async def ask(questions: Sequence[ScoreItem], caller: str) -> list[Score]:
        assert caller == "ada"
        rounds.append([question.grader for question in questions])
        wrong = scored(Judgment(False, "no"), 0.0)
        right = scored(Judgment(True), 0.0)
        return [(answers or {}).get(q.grader, wrong if q.response == "bad" else right) for q in questions]

    lane = PartsLane({"combine": Combine}, {"format", "math", "exact"}, ask)
    return asyncio.run(lane.score(items, "ada")), rounds


def test_the_gates_of_all_items_are_asked_together_and_the_other_parts_of_those_that_pass() -> None:
    scores, rounds = judged(item("good", GATE, MATH), item("bad", MATH, GATE), item("good", MATH))
    assert rounds == [["format", "format", "math"], ["math"]]
    assert [(score.verdict, score.reward) for score in scores] == [
        ("correct", 1.0),
        ("incorrect", 0.0),
        ("correct", 1.0),
    ]
    assert scores[1].detail == "gate format: no"


def test_rewards_are_added_up_by_weight() -> None:
    parts = {"grader": "math", "rewards": [-1, 1]}, {"grader": "exact", "weight": 0.5}
    (right, wrong), _ = judged(item("good", *parts), item("bad", *parts))
    assert (right.reward, wrong.reward) == (1.5, -1.0)
    assert wrong.detail == "math: no; exact: no"


def test_a_part_without_a_verdict_leaves_the_whole_without_one_an_error_before_a_timeout() -> None:
    both = {"math": TIMEOUT, "exact": no_verdict("broken")}
    (score,), _ = judged(item("good", MATH, {"grader": "exact"}), answers=both)
    assert (score.verdict, score.reward, score.detail) == ("error", None, "broken")
    (score,), rounds = judged(item("good", GATE, MATH), answers={"format": TIMEOUT})
    assert (score.verdict, score.detail, rounds) == ("timeout", "slow", [["format"]])


@pytest.mark.parametrize(
    ("faulty", "says"),
    [
        (item("good", {"grader": "maths"}), 'there is no grader "maths"; known: exact, format, math'),
        (item("good", {"grader": "math", "reference": "m"}), 'has no member "m" for grader math'),
        (item("good", {"grader": "combine"}), "combine within combine"),
        (item("good", MATH, overlong={"max_tokens": 9, "buffer_tokens": 3}), "needs the item's response_tokens"),
        (item("good", {"grader": "math", "rewards": [0, float("inf")]}), "gave the reward inf"),
    ],
)
def test_an_item_that_cannot_be_judged_is_an_error_and_the_others_are_judged(faulty: ScoreItem, says: str) -> None:
    scores, _ = judged(faulty, item("good", MATH))
    assert [score.verdict for score in scores] == ["error", "correct"]
    assert says in scores[0].detail


def test_overlong_responses_lose_up_to_the_penalty() -> None:
    shaping = {"max_tokens": 10, "buffer_tokens": 4}
    items = [
        ScoreItem("a", "combine", "good", "12", {"parts": [MATH], "overlong": shaping}, tokens) for tokens in (6, 8, 12)
    ]
    scores, _ = judged(*items)
    assert [score.reward for score in scores] == [1.0, 0.5, 0.0]
    assert scores[1].detail == "overlong -0.5"
