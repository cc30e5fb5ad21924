"""The thread of the environments: every call is answered, and one that nobody waits for any more ends there."""

import asyncio
import threading

import pytest

from rollout.conversation.answers import EnvironmentFault, EnvironmentThread

SOON_S = 20.0


class Slow:
    """Sleeps for a minute, and says when it was begun and when it was ended."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.ended = threading.Event()

    async def __call__(self) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.ended.set()


def test_calls_that_come_together_are_all_answered_each_with_its_own() -> None:
    thread = EnvironmentThread()

    async def answer(number: int) -> int:
        if number % 3 == 0:
            await asyncio.sleep(0.001 * (number % 7))
        if number % 10 == 9:
            raise ValueError(number)
        return number

    async def ask(number: int) -> int | str:
        try:
            return await thread.call("step", lambda: answer(number), SOON_S)
        except EnvironmentFault as fault:
            return str(fault)

    async def all_of_them() -> list[int | str]:
        return list(await asyncio.gather(*map(ask, range(2000))))

    for _ in range(2):  # from one loop after another
        found = asyncio.run(all_of_them())
        assert found == [f"step raised ValueError: {n}" if n % 10 == 9 else n for n in range(2000)]
    thread.stop()


def test_a_call_that_is_late_is_cancelled_where_it_runs() -> None:
    thread, slow = EnvironmentThread(), Slow()
    with pytest.raises(EnvironmentFault, match=r"step took more than environment.turn_s = 0.2 s"):
        asyncio.run(thread.call("step", slow, 0.2))
    assert slow.ended.wait(SOON_S)
    thread.stop()


def test_a_conversation_that_is_cancelled_takes_its_call_with_it() -> None:
    thread, slow = EnvironmentThread(), Slow()

    async def cancelled() -> None:
        asking = asyncio.create_task(thread.call("step", slow, 60.0))
        assert await asyncio.to_thread(slow.begun.wait, SOON_S)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(cancelled())
    assert slow.ended.wait(SOON_S)
    thread.stop()


def test_a_call_that_is_given_up_before_it_began_never_begins() -> None:
    thread, slow = EnvironmentThread(), Slow()

    async def given_up() -> None:
        asking = asyncio.create_task(thread.call("step", slow, 60.0))
        await asyncio.sleep(0)
        asking.cancel()  # while the thread is still held up by the one before
        with pytest.raises(asyncio.CancelledError):
            await asking

    held, go = threading.Event(), threading.Event()

    async def holds_up() -> None:
        held.set()
        go.wait(SOON_S)

    async def scenario() -> None:
        blocking = asyncio.create_task(thread.call("step", holds_up, 60.0))
        assert await asyncio.to_thread(held.wait, SOON_S)
        await given_up()
        go.set()
        await blocking
        await thread.call("step", lambda: asyncio.sleep(0), SOON_S)  # what was sent before has been looked at

    asyncio.run(scenario())
    assert not slow.begun.is_set()
    thread.stop()
