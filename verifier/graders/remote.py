"""Grader `remote`: a service of your own, asked over HTTP, says so.

There are two protocols. `json`: an object with the response, the reference answer and the options goes to the endpoint's URL,
and an object with a reward comes back; options say where each field is. `ratchet`: another verifier of this kind is asked
for the verdict of one of its graders.

Failure modes. Error, never a zero: an answer without a reward, or with one that is not a number, not finite or out of range;
verdict error or timeout of another verifier; an endpoint that is away, refuses, or has spent its budget.
"""

import json
import math
from typing import Any, Literal

import msgspec

from services.wire.verdict import Score
from verifier.contract import ScoreItem, read_response
from verifier.grader import Judgment, ScoringFault
from verifier.network import pointer
from verifier.network.endpoint import Endpoint
from verifier.network.endpoints import Endpoints
from verifier.network.grader import NetworkGrader

SHOWN_CHARACTERS = 60  # of the service's detail, which may quote the response
POINTERS = ("response_at", "reference_at", "options_at", "reward_at", "correct_at", "detail_at")
ONLY_ITEM = "0"


class Remote(NetworkGrader, frozen=True):
    endpoint: str = "remote"
    """Name of the endpoint in [verifier.endpoints]."""
    protocol: Literal["json", "ratchet"] = "json"
    """ratchet: the endpoint is the URL of another verifier; /v1/score is appended to it."""
    grader: str | None = None
    """Grader of the other verifier; for protocol ratchet only."""
    options: dict[str, Any] = {}
    """Options that are passed on as they are."""
    lowest: float = 0.0
    """The lowest possible reward. One below it is a fault of the service."""
    highest: float = 1.0
    """The highest possible reward. One above it is a fault of the service."""
    threshold: float | None = None
    """Reward from which a response is correct when the service does not say. None: the middle of lowest and highest."""
    response_at: str = "/response"
    """JSON pointer: where the response goes in the request. This and the following are for protocol json only."""
    reference_at: str = "/reference"
    """JSON pointer: where the reference goes in the request."""
    options_at: str = "/options"
    """JSON pointer: where the options go in the request."""
    reward_at: str = "/reward"
    """JSON pointer: where the reward is in the answer."""
    correct_at: str = "/correct"
    """JSON pointer: where the answer says true or false; it may be missing there."""
    detail_at: str = "/detail"
    """JSON pointer: where the answer says why; it may be missing there."""

    def __post_init__(self) -> None:
        if (self.protocol == "ratchet") != (self.grader is not None):
            raise ScoringFault(
                "option grader names a grader of the other verifier: give it with protocol ratchet, and only then"
            )
        if not (math.isfinite(self.lowest) and math.isfinite(self.highest) and self.lowest < self.highest):
            raise ScoringFault(f"options lowest = {self.lowest} and highest = {self.highest} span no range of rewards")
        if self.threshold is not None and not self.lowest <= self.threshold <= self.highest:
            raise ScoringFault(f"option threshold = {self.threshold} is not from {self.lowest} to {self.highest}")
        try:
            for name in POINTERS:
                pointer.steps(getattr(self, name))
            self._request("", None)
        except ValueError as fault:
            raise ScoringFault(f"options {', '.join(POINTERS)}: {fault}") from fault

    def check(self, reference: Any) -> None:
        """Only the service knows whether it can use the reference; here, whether it can be sent at all."""
        try:
            msgspec.json.encode(reference)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as fault:
            raise ScoringFault(f"the reference cannot be put into a request: {fault}"[:200]) from fault

    def cache_salt(self, endpoints: Endpoints) -> str:
        """The verdict depends on the endpoint, which the options only name."""
        return endpoints[self.endpoint].identity

    async def score(self, response: str, reference: Any, endpoints: Endpoints) -> Judgment:
        endpoint, response = endpoints[self.endpoint], response.encode(errors="replace").decode()
        if self.protocol == "ratchet":
            return await self._score_by_verifier(endpoint, response, reference)
        answer = await endpoint.post(self._request(response, reference), _decode)
        reward = self._reward(pointer.found(answer, self.reward_at), self.reward_at)
        correct = pointer.found(answer, self.correct_at)
        if correct in (pointer.MISSING, None):
            middle = (self.lowest + self.highest) / 2
            correct = reward >= (middle if self.threshold is None else self.threshold)
        elif not isinstance(correct, bool):
            raise ScoringFault(
                f"the remote grader's answer has {type(correct).__name__} at {self.correct_at}, not a bool"
            )
        detail = pointer.found(answer, self.detail_at)
        return Judgment(correct, detail[:SHOWN_CHARACTERS] if isinstance(detail, str) else "", reward)

    async def _score_by_verifier(self, endpoint: Endpoint, response: str, reference: Any) -> Judgment:
        assert self.grader is not None
        item = ScoreItem(ONLY_ITEM, self.grader, response, reference, self.options)
        score = await endpoint.post({"items": [item]}, _decode_score, path="/v1/score")
        if score.reward is None:
            raise ScoringFault(f"the other verifier's verdict is {score.verdict}: {score.detail[:SHOWN_CHARACTERS]}")
        reward = self._reward(score.reward, "/results/0/reward")
        return Judgment(score.verdict == "correct", score.detail[:SHOWN_CHARACTERS], reward)

    def _request(self, response: str, reference: Any) -> dict[str, Any]:
        """Raises ValueError when two of the pointers name the same place."""
        body: dict[str, Any] = {}
        pointer.put(body, self.response_at, response)
        pointer.put(body, self.reference_at, reference)
        pointer.put(body, self.options_at, self.options)
        return body

    def _reward(self, value: Any, place: str) -> float:
        if value is pointer.MISSING:
            raise ScoringFault(f"the remote grader's answer has no reward at {place}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ScoringFault(f"the remote grader's reward at {place} is not a number but {type(value).__name__}")
        if not self.lowest <= value <= self.highest:  # nan is in no range
            raise ScoringFault(f"the remote grader's reward is not from {self.lowest:g} to {self.highest:g}, the range")
        return float(value)


def _decode(content: bytes) -> Any:
    # Not msgspec: NaN and Infinity, which Python's servers send, get a better error than an answer that is not JSON at all.
    return json.loads(content)


def _decode_score(content: bytes) -> Score:
    return read_response(content, [ONLY_ITEM])[0]
