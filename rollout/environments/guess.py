"""Environment `guess`: find the number in the reference; each wrong guess is answered with the word for higher or for lower.

The conversation begins with the row's prompt and is over with the right guess, or after `guesses` of them. The reward is given
then: 1 for the right number, otherwise 0. A message in which `pattern` finds no number costs a guess, and is told so. With
`heeded` each wrong guess that the hints before it leave possible has a reward of its own, for learner.advantage.turns.
"""

import math
import re

from rollout.environments.environment import Message, Start, Subject, Turn


class Guess:
    gives_rewards = True

    def __init__(
        self,
        *,
        guesses: int = 4,
        higher: str = "higher",
        lower: str = "lower",
        unreadable: str = "Say a number.",
        pattern: str = r"\d+",
        heeded: float = 0.0,
    ) -> None:
        """guesses: the most of them. higher, lower, unreadable: what is answered. pattern: what a guess looks like. heeded: the
        reward of a wrong guess within the hints."""
        if guesses < 1:
            raise ValueError(f"guesses = {guesses} is less than 1")
        if not 0.0 <= heeded * guesses < 1.0:
            raise ValueError(
                f"heeded = {heeded} for each of {guesses} guesses is not between 0 and 1 in all, the reward of the right number"
            )
        self._heeded = heeded
        self._above = -math.inf
        self._below = math.inf
        self._left = guesses
        self._higher = higher
        self._lower = lower
        self._unreadable = unreadable
        try:
            self._pattern = re.compile(pattern)
        except re.error as fault:
            raise ValueError(f'pattern = "{pattern}" is not a regular expression: {fault}') from None
        self._number = 0

    async def reset(self, subject: Subject) -> Start:
        self._number = int(subject.reference)
        return Start(subject.messages)

    async def step(self, message: Message) -> Turn:
        self._left -= 1
        found = self._pattern.search(message["content"])
        guess = None if found is None else int(found[0])
        if guess == self._number:
            return Turn(done=True, reward=1.0)
        reward = self._heeded if guess is not None and self._above < guess < self._below else 0.0
        if self._left == 0:
            return Turn(done=True, reward=reward)
        given = reward if self._heeded else None
        if guess is None:
            return Turn([{"role": "user", "content": self._unreadable}], reward=given)
        if guess < self._number:
            self._above = max(self._above, guess)
            return Turn([{"role": "user", "content": self._higher}], reward=given)
        self._below = min(self._below, guess)
        return Turn([{"role": "user", "content": self._lower}], reward=given)

    async def close(self) -> None:
        """Nothing is held."""
