import asyncio

import pytest

from verifier.supervised import supervised


async def fails() -> None:
    raise ValueError("broken")


def test_work_that_ends_first_is_the_end() -> None:
    async def main() -> None:
        other = asyncio.create_task(asyncio.sleep(60))
        await supervised(asyncio.sleep(0), other)
        assert not other.done()
        other.cancel()
        with pytest.raises(ValueError, match="broken"):
            await supervised(fails())

    asyncio.run(main())


def test_the_failure_of_another_ends_the_work() -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()

        with pytest.raises(ValueError, match="broken"):
            await supervised(work(), asyncio.create_task(fails()))
        assert cancelled.is_set()
        with pytest.raises(RuntimeError, match="stopped by itself"):
            await supervised(work(), asyncio.create_task(asyncio.sleep(0)))

    asyncio.run(main())
