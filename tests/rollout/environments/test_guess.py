"""The guessing game gives its hints by the last guess, and rewards what its options say."""

import asyncio
from typing import Any

import pytest

from rollout.environments import Subject, Turn
from rollout.environments.guess import Guess

PROBLEM = Subject(prompt="which number?", reference="5", options={}, row=0, seed=0)


def play(*guesses: str, **options: Any) -> list[Turn]:
    async def conversation() -> list[Turn]:
        game = Guess(**options)
        await game.reset(PROBLEM)
        return [await game.step({"role": "assistant", "content": text}) for text in guesses]

    return asyncio.run(conversation())


def rewards(*guesses: str, **options: Any) -> list[float | None]:
    return [turn.reward for turn in play(*guesses, **options)]


def test_hints_follow_the_guess_and_the_end_has_the_reward() -> None:
    low, unreadable, high, right = play("3", "three", "9", "5")
    assert [turn.messages[0]["content"] for turn in (low, unreadable, high)] == ["higher", "Say a number.", "lower"]
    assert (right.done, right.reward, list(right.messages)) == (True, 1.0, [])
    assert rewards("3", "9", guesses=2) == [None, 0.0]


def test_a_guess_within_the_hints_has_a_reward_of_its_own_where_the_options_say_so() -> None:
    assert rewards("3", "9", "2", "5", heeded=0.1) == [0.1, 0.1, 0.0, 1.0]
    assert rewards("3", "three", "9", "9", heeded=0.1) == [0.1, 0.0, 0.1, 0.0]
    assert rewards("3", "4", guesses=2, heeded=0.1) == [0.1, 0.1]


@pytest.mark.parametrize("heeded", [0.25, -0.1])
def test_rewards_of_turns_that_could_pass_for_a_win_are_refused(heeded: float) -> None:
    with pytest.raises(ValueError, match="is not between 0 and 1 in all"):
        Guess(guesses=4, heeded=heeded)
