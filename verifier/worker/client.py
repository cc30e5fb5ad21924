"""Asks a scoring service over HTTP, here or elsewhere, until it answers.

There are three kinds of answer: scores; a refusal of this very request (413, 422, 500), which is asked again in halves until
it is known which item is meant; and anything else, which says that the service is away, and is waited for.
"""

import asyncio
from collections.abc import Sequence, Set

import httpx
import msgspec

from services.config.verifier import VerifierConfig
from services.errors import InputError, RatchetError
from services.metrics import waiting
from services.verifier_access import own_token
from services.wire.verdict import Score
from verifier.contract import Refusal, ScoreItem, read_response
from verifier.scores import no_verdict
from verifier.worker.retry import Outage

REFUSALS = {413, 422, 500}  # 500: a fault of the service that the next try of the same request would meet again
LONGEST_RETRY_AFTER_S = 60.0
ANSWER_SLACK_S = 90.0  # on top of every item taking its whole deadline: importing a grader, and a queue
ENVELOPE = b'{"items":[', b"]}"

_encoder = msgspec.json.Encoder()


class ServiceAway(RatchetError):
    """The worker was asked to stop while the service was away."""


class RequestRefused(RatchetError):
    """The service will not score this request, however often it is asked."""


class ScoringClient:
    """Safe for any number of concurrent calls."""

    def __init__(self, http: httpx.AsyncClient, url: str, settings: VerifierConfig, stop: asyncio.Event) -> None:
        """Raises InputError when `url` is malformed."""
        self._http = http
        self._settings = settings
        token = own_token()
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._endpoint = score_url(url)
        self._outage = Outage("scoring", f"the scoring service at {url}", stop)

    async def score(self, items: Sequence[ScoreItem]) -> list[Score]:
        """One score for each item, in order. Raises ServiceAway, and only after the worker was asked to stop.

        Waits for: the scoring service, also while it is away.
        Until: no deadline while it is away; an answer may take the deadlines of all items and ANSWER_SLACK_S.
        Ended by: an answer or a refusal for every item, or the stop signal and retry.LAST_TRIES more tries.
        Metric: ratchet_waiting{room="verifier", awaiting="scores"}; awaiting="scoring" between tries.
        """
        encoded: list[bytes | Score] = []
        for item in items:
            try:
                encoded.append(_encoder.encode(item))
            except (TypeError, ValueError, msgspec.MsgspecError) as fault:
                encoded.append(no_verdict(f"cannot be put into a request: {fault}"))
        sendable = [index for index, body in enumerate(encoded) if isinstance(body, bytes)]
        bodies = [body for body in encoded if isinstance(body, bytes)]
        item_s = self._longest_s({item.grader for item in items})
        scores = await self._score_bodies([items[index].id for index in sendable], bodies, item_s)
        answered = dict(zip(sendable, scores, strict=True))
        return [body if isinstance(body, Score) else answered[index] for index, body in enumerate(encoded)]

    def _longest_s(self, graders: Set[str]) -> float:
        """How long the slowest item may take, in seconds."""
        if "combine" in graders:  # its parts may be any
            graders = graders | {"code", "judge", *self._settings.limits}
        asked_s = [2 * endpoint.deadline_s for endpoint in self._settings.endpoints.values()]  # a judge may ask twice
        own_s = [self._settings.item_deadline_s, *map(self._settings.deadline_s, graders)]
        return max(own_s + asked_s if graders & {"judge", "remote"} else own_s)

    async def _score_bodies(self, ids: list[str], bodies: list[bytes], item_s: float) -> list[Score]:
        if not bodies:
            return []
        size_bytes = sum(map(len, bodies)) + len(bodies) + len(b"".join(ENVELOPE))
        fits = size_bytes <= self._settings.max_body_bytes and len(bodies) <= self._settings.max_batch_items
        if fits or len(bodies) == 1:
            try:
                return await self._post(ids, ENVELOPE[0] + b",".join(bodies) + ENVELOPE[1], item_s)
            except RequestRefused as refusal:
                if len(bodies) == 1:
                    return [no_verdict(str(refusal))]
        middle = len(bodies) // 2
        first = await self._score_bodies(ids[:middle], bodies[:middle], item_s)
        return first + await self._score_bodies(ids[middle:], bodies[middle:], item_s)

    async def _post(self, ids: list[str], body: bytes, item_s: float) -> list[Score]:
        """Raises RequestRefused or ServiceAway."""
        timeout = httpx.Timeout(10.0, read=len(ids) * item_s + ANSWER_SLACK_S, write=60.0, pool=None)
        reason = ""
        for pause_s in self._outage.pauses():
            least_s = 0.0
            try:
                with waiting("verifier", "scores"):
                    response = await self._http.post(
                        self._endpoint, content=body, headers=self._headers, timeout=timeout
                    )
                if response.status_code == 200:
                    scores = read_response(response.content, ids)
                    self._outage.over()
                    return scores
                if response.status_code in REFUSALS:
                    self._outage.over()
                    raise RequestRefused(f"the scoring service refused it: {describe(response)}")
                reason = describe(response)
                least_s = retry_after_s(response)
            except (httpx.TransportError, httpx.DecodingError) as fault:
                reason = f"{type(fault).__name__}: {fault}"
            except msgspec.MsgspecError as fault:
                reason = f"its answer does not follow the contract: {fault}"
            await self._outage.pause(reason, max(pause_s, least_s))
        raise ServiceAway(f"stopped with groups that the scoring service never answered for ({reason})")


def describe(response: httpx.Response) -> str:
    """What went wrong, for a log line or a cause."""
    try:
        refusal = msgspec.json.decode(response.content, type=Refusal)
    except msgspec.MsgspecError:
        return f"HTTP {response.status_code}: {response.text[:200]}"
    return f"HTTP {response.status_code}: {refusal.error} (at {refusal.path})"


def retry_after_s(response: httpx.Response) -> float:
    """Seconds that the service asks to be left alone; 0 when it does not say, or gives a date."""
    try:
        return min(LONGEST_RETRY_AFTER_S, max(0.0, float(response.headers.get("Retry-After", 0))))
    except ValueError:
        return 0.0


def score_url(url: str) -> str:
    """Where items are sent. Raises InputError when the service's URL is malformed."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as fault:
        raise InputError(f"verifier.url = {url!r} is not a URL: {fault}") from fault
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise InputError(f"verifier.url = {url!r}: give http://HOST:PORT or https://HOST:PORT")
    return url.rstrip("/") + "/v1/score"
