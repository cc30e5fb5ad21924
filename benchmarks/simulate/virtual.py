"""A clock that stands still while anything is computed, and an asyncio loop that jumps to the next thing that happens.

The learner's half of the weights blocks (it has a thread of its own in a run), the replicas' half is asyncio. Here both share
one thread: the learner is the caller, and whenever it waits the loop runs on. What replicas do in threads is done at once,
and takes the time that the server says.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

T = TypeVar("T")


class Blocked(Exception):
    """What was asked for is not there yet; ask again once `until` is done."""

    def __init__(self, until: "asyncio.Future[None]") -> None:
        super().__init__("not yet")
        self.until = until


class _Instant(selectors.SelectSelector):
    """Instead of waiting it turns the clock."""

    turn: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        if not found and timeout:
            self.turn(timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual, from 0."""

    def __init__(self) -> None:
        self._at_s = 0.0
        self._owed_s = 0.0
        selector = _Instant()
        selector.turn = self._turn
        super().__init__(selector)

    def _turn(self, seconds: float) -> None:
        self._at_s += seconds

    def time(self) -> float:
        return self._at_s

    monotonic = time

    def owe(self, seconds: float) -> None:
        """Whoever is calling the server now has to wait this long for its answer."""
        self._owed_s += seconds

    def write_off(self) -> None:
        """Nobody waits for what has been owed so far: it was called while the fleet was put together."""
        self._owed_s = 0.0

    def pay(self) -> None:
        """The caller is the learner: everybody goes on for as long as it waits for the server."""
        owed_s, self._owed_s = self._owed_s, 0.0
        self.go_on(owed_s)

    def go_on(self, seconds: float) -> None:
        """The learner waits this long."""
        self.run_until_complete(asyncio.sleep(seconds))

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":  # type: ignore[override]
        """What is called is of the simulation: it blocks by raising Blocked, and owes what it takes."""
        return self.create_task(self._call(func, *args))

    async def _call(self, func: Callable[..., T], *args: Any) -> T:
        while True:
            try:
                result = func(*args)
            except Blocked as blocked:
                await _both(self._owing(), blocked.until)
                continue
            await self._owing()
            return result

    async def _owing(self) -> None:
        owed_s, self._owed_s = self._owed_s, 0.0
        await asyncio.sleep(owed_s)

    def begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin something that the learner does not wait for here."""
        return self.create_task(work)


async def _both(*waits: Awaitable[None]) -> None:
    for each in waits:
        await each


@contextmanager
def virtual_time(loop: VirtualLoop) -> Iterator[None]:
    """Inside, `services.clock` tells the loop's time."""
    with mock.patch("services.clock.time", loop):
        yield
