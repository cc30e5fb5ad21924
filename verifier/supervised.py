"""Work that ends when something that it depends on ends first."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def supervised(work: Coroutine[Any, Any, Any], *others: "asyncio.Task[None]") -> None:
    """Runs `work` to its end. When one of the others ends first, `work` is cancelled and the other's exception is raised.

    Waits for: the work, and the end of the others.
    Until: it is stopped.
    Ended by: whichever ends first, or cancellation.
    Metric: those of the work.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task, *others}, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            if other.done() and not task.done():
                other.result()
                raise RuntimeError("the HTTP server stopped by itself")
    except BaseException:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    task.result()
