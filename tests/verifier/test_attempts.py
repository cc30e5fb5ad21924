import asyncio
from collections.abc import Sequence

from services.wire.verdict import Score
from verifier.attempts import ask_again, pause_s
from verifier.contract import ScoreItem
from verifier.grader import Judgment
from verifier.scores import no_verdict, scored

ITEMS = [ScoreItem(name, "exact", name, name) for name in "abc"]
RIGHT = scored(Judgment(True), 0.0)


def asked(*answers: dict[str, Score], attempts: int) -> tuple[list[str], list[str], list[float]]:
    """Final verdicts, what was asked in each further attempt, and the pauses; the first answer is the first attempt's."""
    questions: list[str] = []
    pauses: list[float] = []
    coming = iter(answers)

    async def ask(items: Sequence[ScoreItem]) -> list[Score]:
        questions.append("".join(item.id for item in items))
        answer = next(coming)
        return [answer[item.id] for item in items]

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def main() -> list[str]:
        scores = await ask(ITEMS)
        await ask_again(ask, ITEMS, scores, attempts=attempts, pause=pause)
        return [score.verdict for score in scores]

    return asyncio.run(main()), questions[1:], pauses


def test_only_responses_without_a_verdict_are_asked_for_again() -> None:
    away = no_verdict("away")
    first, second, third = {"a": RIGHT, "b": away, "c": away}, {"b": RIGHT, "c": away}, {"c": RIGHT}
    assert asked(first, second, third, attempts=4) == (["correct"] * 3, ["bc", "c"], [0.5, 2.0])
    assert asked(first, second, attempts=2) == (["correct", "correct", "error"], ["bc"], [0.5])
    assert asked(first, attempts=1) == (["correct", "error", "error"], [], [])


def test_pauses_grow_fourfold() -> None:
    assert [pause_s(attempt) for attempt in (1, 2, 3)] == [0.5, 2.0, 8.0]
