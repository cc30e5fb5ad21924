"""The scoring service of this process, asked without a socket: the same contract, checks and log, for a quarter of the processor
time of a small request."""

import asyncio

import httpx
from starlette.types import ASGIApp


class OwnService(httpx.ASGITransport):
    """Hands requests to the application. A fault of it is its answer 500, as over HTTP; a late answer is a ReadTimeout."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, raise_app_exceptions=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer of the application.

        Waits for: the application, which waits for the graders.
        Until: the request's read timeout, which the client sets for all items of a request.
        Ended by: the answer, or the time (httpx.ReadTimeout).
        Metric: ratchet_waiting{room="verifier", awaiting="scores"}.
        """
        within_s: float | None = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(within_s):
                return await super().handle_async_request(request)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no answer within {within_s:g} s", request=request) from None
