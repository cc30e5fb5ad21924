"""One service that graders ask: a limited number of requests at a time, repeated when that may help, all of it bounded.

A call takes its turn, then sends up to `attempts` requests, each with a permit of the breaker and within the budget. What
fails for good raises a ScoringFault of faults.py; a cancelled call gives back all that it took. Neither keys nor URLs nor
texts of requests and answers are logged.
"""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import httpx
import msgspec

from services.clock import now_s
from services.config.endpoints import EndpointConfig
from services.metrics import waiting
from verifier.grader import ScoringFault
from verifier.network import backoff, metrics
from verifier.network.budget import Budget
from verifier.network.circuit import Circuit
from verifier.network.exchange import Answer, exchange, require_success
from verifier.network.faults import CutShort, EndpointAway, EndpointRefused, RequestFailed, RequestLate, RequestLost

T = TypeVar("T")

NO_TURN = "its turn did not come; raise max_concurrent or deadline_s"
LEAST_S = 0.02
"""Seconds. With less than this left a request would be cut short before anybody could answer it."""


class Endpoint:
    """Safe for any number of concurrent calls on one event loop."""

    def __init__(self, name: str, settings: EndpointConfig, http: httpx.AsyncClient) -> None:
        """http: sends the endpoint's token with every request, has no timeouts of its own and follows no redirects."""
        self.name = name
        self.settings = settings
        self.budget = Budget(name, settings.budget)
        self._circuit = Circuit(name, settings.breaker, settings.timeout_s)
        self._http = http
        self._turns = asyncio.Semaphore(settings.max_concurrent)
        self._held_until_s = 0.0  # the endpoint asked for no requests until then
        metrics.announce(name)

    @property
    def identity(self) -> str:
        """A digest that changes when the endpoint may judge differently; part of the verdict cache's key."""
        settings = self.settings
        asked = msgspec.json.encode([settings.url, settings.model, settings.body], order="sorted")
        return hashlib.sha256(asked).hexdigest()[:16]

    async def post(self, body: Mapping[str, Any], read: Callable[[bytes], T], *, path: str = "") -> T:
        """Send a request and return what `read` makes of the answer. Raises EndpointAway, EndpointRefused or BudgetSpent.

        path: appended to the endpoint's URL. read: raises ValueError, or an error of msgspec's, for an answer that its
        protocol does not know; that counts as a failure of the endpoint, like a broken connection.

        Waits for: a turn at the endpoint, pauses between requests, and the endpoint's answers.
        Until: deadline_s of the endpoint, for all of it together.
        Ended by: a usable answer, a refusal, the last attempt, an open breaker, a spent budget, or the deadline.
        Metric: ratchet_waiting{room="verifier", awaiting="endpoint turn"}, then "endpoint answer" and "endpoint pause".
        """
        try:
            content = msgspec.json.encode({**body, **self.settings.body})
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as fault:
            raise ScoringFault(f"cannot be put into a request: {fault}"[:200]) from fault
        url, give_up_s = joined(self.settings.url, path), now_s() + self.settings.deadline_s
        async with self._turn(give_up_s):
            await self._wait(0.0, give_up_s, "it asked for a pause")
            for attempt in range(1, self.settings.attempts + 1):
                try:
                    return await self._request(url, content, read, give_up_s)
                except RequestLost as lost:
                    held_s = min(lost.hold_s, backoff.LONGEST_HOLD_S)
                    self._held_until_s = max(self._held_until_s, now_s() + held_s)
                    cause = str(lost)
                if not self._circuit.closed:  # no pause would help
                    raise self._circuit.away()
                if attempt < self.settings.attempts:
                    await self._wait(backoff.pause_s(attempt - 1, random.random()), give_up_s, cause)
        cause = f"{self.settings.attempts} requests without a usable answer, the last one: {cause}"
        raise EndpointAway(self.name, cause, retry_after_s=max(0.0, self._held_until_s - now_s()))

    @asynccontextmanager
    async def _turn(self, give_up_s: float) -> AsyncIterator[None]:
        """Hold one of the endpoint's max_concurrent turns. Raises EndpointAway.

        Waits for: another call to give its turn back.
        Until: give_up_s, the end of the call (deadline_s).
        Ended by: a free turn, or the deadline.
        Metric: ratchet_waiting{room="verifier", awaiting="endpoint turn"}; by endpoint, ratchet_verifier_endpoint_waiting_calls.
        """
        queued = metrics.ENDPOINT_WAITING.labels(self.name)
        queued.inc()
        try:
            with waiting("verifier", "endpoint turn"):
                async with asyncio.timeout(give_up_s - now_s()):
                    await self._turns.acquire()
        except TimeoutError:
            raise self._too_late(NO_TURN) from None
        finally:
            queued.dec()
        try:
            if give_up_s - now_s() < LEAST_S:  # whoever had the turn began together with this call
                raise self._too_late(NO_TURN)
            yield
        finally:
            self._turns.release()

    async def _wait(self, pause_s: float, give_up_s: float, cause: str) -> None:
        """Pause before the next request. Raises EndpointAway instead of waiting past the end of the call.

        Waits for: the pause to pass, and the time for which the endpoint asked for no requests.
        Until: give_up_s, the end of the call (deadline_s).
        Ended by: the time; at once, by a fault, when the pause would outlast the call.
        Metric: ratchet_waiting{room="verifier", awaiting="endpoint pause"}.
        """
        until_s = now_s() + pause_s
        # Computed again after each sleep: the answer to another call may have moved the end.
        while (left_s := max(until_s, self._held_until_s) - now_s()) > 0:
            if now_s() + left_s >= give_up_s:
                raise self._too_late(f"the next request must wait for {left_s:.1f} s, after: {cause}", left_s)
            with waiting("verifier", "endpoint pause"):
                await asyncio.sleep(left_s)

    async def _request(self, url: str, content: bytes, read: Callable[[bytes], T], give_up_s: float) -> T:
        """Send one request, with a permit and a budget. Raises RequestLost when another request may help."""
        with self._circuit.permit():
            self.budget.spend_call()
            with self._counted():
                answer = await self._answer(url, content, give_up_s)
                require_success(self.name, answer)
                try:
                    return read(answer.content)
                except (ValueError, RecursionError, msgspec.MsgspecError) as fault:
                    raise RequestFailed(f"its answer does not follow the protocol: {fault}"[:120]) from fault

    async def _answer(self, url: str, content: bytes, give_up_s: float) -> Answer:
        """Send one request and return the whole answer. Raises RequestFailed, RequestLate or CutShort.

        Waits for: the endpoint's answer, to its last byte.
        Until: timeout_s of the endpoint, or give_up_s, the end of the call, if that comes first.
        Ended by: the answer, a broken connection, or the deadline.
        Metric: ratchet_waiting{room="verifier", awaiting="endpoint answer"}.
        """
        left_s, timeout_s = give_up_s - now_s(), self.settings.timeout_s
        try:
            with waiting("verifier", "endpoint answer"):
                async with asyncio.timeout(min(left_s, timeout_s)):
                    return await exchange(self._http, url, content, self.settings.max_answer_bytes)
        except TimeoutError:
            if left_s < timeout_s:
                raise CutShort(f"no answer within the {left_s:.1f} s left of deadline_s") from None
            raise RequestLate(f"no answer within timeout_s = {timeout_s:g}") from None

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count one request by what becomes of it, and time it when it is answered."""
        start_s, outcome = now_s(), "cancelled"
        try:
            yield
            outcome = "answered"
            metrics.ENDPOINT_SECONDS.labels(self.name).observe(now_s() - start_s)
        except (RequestLost, EndpointRefused) as end:
            outcome = end.outcome
            raise
        finally:
            metrics.ENDPOINT_CALLS.labels(self.name, outcome).inc()

    def _too_late(self, cause: str, retry_after_s: float = 0.0) -> EndpointAway:
        metrics.ENDPOINT_UNSENT.labels(self.name, "deadline").inc()
        cause = f"deadline_s = {self.settings.deadline_s:g} is over or would be: {cause}"
        return EndpointAway(self.name, cause, retry_after_s=retry_after_s)


def joined(url: str, path: str) -> str:
    """The URL with `path` after its own path and before its query."""
    if not path:
        return url
    head, mark, query = url.partition("?")
    return head.rstrip("/") + path + mark + query
