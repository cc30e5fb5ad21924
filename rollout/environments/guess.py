"""Environment `guess`: find the number in the reference; each wrong guess is answered with the word for higher or for lower.

The conversation begins with the row's prompt and is over with the right guess, or after `guesses` of them. The reward is given
then: 1 for the right number, otherwise 0. A message in which `pattern` finds no number costs a guess, and is told so.
"""

import re

from rollout.environments.environment import Message, Start, Subject, Turn


class Guess:
    def __init__(
        self,
        *,
        guesses: int = 4,
        higher: str = "higher",
        lower: str = "lower",
        unreadable: str = "Say a number.",
        pattern: str = r"\d+",
    ) -> None:
        """guesses: the most of them. higher, lower, unreadable: what is answered. pattern: what a guess looks like."""
        if guesses < 1:
            raise ValueError(f"guesses = {guesses} is less than 1")
        self._left = guesses
        self._higher = higher
        self._lower = lower
        self._unreadable = unreadable
        self._pattern = re.compile(pattern)
        self._number = 0

    async def reset(self, subject: Subject) -> Start:
        self._number = int(subject.reference)
        return Start(subject.messages)

    async def step(self, message: Message) -> Turn:
        self._left -= 1
        found = self._pattern.search(message["content"])
        if found is not None and int(found[0]) == self._number:
            return Turn(done=True, reward=1.0)
        if self._left == 0:
            return Turn(done=True, reward=0.0)
        if found is None:
            return Turn([{"role": "user", "content": self._unreadable}])
        hint = self._higher if int(found[0]) < self._number else self._lower
        return Turn([{"role": "user", "content": hint}])

    async def close(self) -> None:
        """Nothing is held."""
