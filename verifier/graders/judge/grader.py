"""Grader `judge`: a language model behind an OpenAI-compatible endpoint decides whether the response meets a rubric.

The reference is the right answer as a text or a number, an object with `question`, `answer` or both, or null when the
rubric says everything. The majority of the votes decides; on a scale, their median. Their number is odd, so there is no tie.

Failure modes:
- An empty response, or one longer than max_response_chars, is incorrect and costs nothing.
- A judge that twice gives no readable verdict, and an endpoint that is away, refuses or has spent its budget, are an error.
- A judge can be talked into things, and can be wrong: docs/judge.md says what to do about it.
"""

import asyncio
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from verifier.grader import Judgment, ScoringFault
from verifier.graders.blank import is_blank
from verifier.graders.judge import prompt
from verifier.graders.judge.answer import UnusableReply, read_score, read_verdict
from verifier.network import chat
from verifier.network.endpoint import Endpoint
from verifier.network.endpoints import Endpoints
from verifier.network.grader import NetworkGrader

READINGS = 2  # questions that one vote may take, when the judge gives no verdict
SHOWN_CHARACTERS = 60  # of the judge's reason in the detail; it may quote the response
PARTS = {"question": "question", "answer": "reference answer"}

RUBRIC = """The response is correct when the final answer that it reaches means the same as the reference answer. Another \
form, wording, unit or precision that leaves the meaning as it is counts as the same. A response without a final answer, \
with several that differ, or with a final answer that is only partly right is incorrect. Do not solve the task yourself \
where a reference answer is given: it is right."""

T = TypeVar("T")
Material = list[tuple[str, str]]
"""Name and text of each block."""


class Judge(NetworkGrader, frozen=True):
    version: ClassVar[str] = f"1.{prompt.PROMPT_VERSION}"
    cached: ClassVar[bool] = True

    endpoint: str = "judge"
    """Name of the endpoint in [verifier.endpoints]; it has the model."""
    rubric: str = RUBRIC
    """In words, what makes a response correct, or what earns a high score."""
    scale: tuple[float, float] | None = None
    """Lowest and highest score; the reward is the score, scaled to 0..1. Without a scale the judge says correct or incorrect."""
    threshold: float | None = None
    """Lowest score of a correct response; by default the middle of the scale."""
    votes: Annotated[int, msgspec.Meta(ge=1, le=31)] = 1
    """Votes on each response, an odd number: the majority decides, on a scale the median."""
    temperature: float | None = 0.0
    """Not sent if null. Several votes need a temperature above 0, or they are all the same."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = 1024
    """Longest answer of the judge, its thinking included; not sent if null."""
    json_mode: bool = True
    """Ask the server to let the model write nothing but JSON. Turn it off for servers that do not know response_format."""
    system_message: bool = True
    """Send the rubric in a system message. Turn it off for models whose chat template has none."""
    max_response_chars: Annotated[int, msgspec.Meta(ge=1)] = 32_000
    """A longer response is incorrect without being shown to the judge."""

    def __post_init__(self) -> None:
        if not self.rubric.strip():
            raise ScoringFault("option rubric is empty; say what makes a response correct")
        if self.votes % 2 == 0:
            raise ScoringFault(f"option votes = {self.votes}: an even number may tie; give an odd one")
        if self.temperature is not None and not 0.0 <= self.temperature <= 2.0:
            raise ScoringFault(f"option temperature = {self.temperature}: give a number from 0 to 2")
        if self.votes > 1 and self.temperature == 0.0:
            raise ScoringFault(
                f"option votes = {self.votes} with temperature = 0 asks for the same vote again and again"
            )
        if self.scale is None:
            if self.threshold is not None:
                raise ScoringFault("option threshold has no meaning without scale")
            return
        low, high = self.scale
        if not (math.isfinite(low) and math.isfinite(high) and math.isfinite(high - low) and low < high):
            raise ScoringFault(f"option scale = [{low}, {high}]: give a lower number, then a higher one")
        if self.threshold is not None and not low < self.threshold <= high:
            raise ScoringFault(f"option threshold = {self.threshold} is not above {low} and up to {high}, the scale")

    def check(self, reference: Any) -> None:
        _material(reference)

    def cache_salt(self, endpoints: Endpoints) -> str:
        """Part of the key of a cached verdict, because the options name the endpoint but not the model behind it."""
        return endpoints[self.endpoint].identity

    async def score(self, response: str, reference: Any, endpoints: Endpoints) -> Judgment:
        material = _material(reference)
        if not response.strip():
            return Judgment(False, "the response is empty")
        if len(response) > self.max_response_chars:
            return Judgment(
                False, f"{len(response)} characters are more than max_response_chars = {self.max_response_chars}"
            )
        material.append(("response", response))
        if self.scale is None:
            return _majority(await self._votes(endpoints, material, prompt.VERDICT_FORMAT, read_verdict))
        low, high = self.scale
        score_format = prompt.SCORE_FORMAT.format(low=low, high=high)
        read = functools.partial(read_score, low=low, high=high)
        score, reason = _median(await self._votes(endpoints, material, score_format, read))
        needed = (low + high) / 2 if self.threshold is None else self.threshold
        detail = f"score {score:g} of {high:g}: {reason[:SHOWN_CHARACTERS]}"
        return Judgment(score >= needed, detail, (score - low) / (high - low))

    async def _votes(
        self, endpoints: Endpoints, material: Material, answer_format: str, read: Callable[[chat.Reply], T]
    ) -> list[T]:
        """All votes. Raises ScoringFault when one fails: a majority of the others would depend on which of them failed.

        Waits for: the judge's endpoint to answer every vote, all at the same time.
        Until: deadline_s of the endpoint for each question, of which a vote takes at most READINGS.
        Ended by: the last vote, or the first fault, which cancels the others.
        Metric: ratchet_waiting{room="verifier", awaiting="endpoint turn"}, then "endpoint answer" and "endpoint pause".
        """
        endpoint = endpoints[self.endpoint]
        votes = [asyncio.create_task(self._vote(endpoint, material, answer_format, read)) for _ in range(self.votes)]
        try:
            return await asyncio.gather(*votes)
        finally:
            for vote in votes:
                vote.cancel()
            await asyncio.gather(*votes, return_exceptions=True)

    async def _vote(
        self, endpoint: Endpoint, material: Material, answer_format: str, read: Callable[[chat.Reply], T]
    ) -> T:
        cause = ""
        for _ in range(READINGS):
            reply = await chat.complete(
                endpoint,
                prompt.questions(self.rubric, answer_format, material, system_message=self.system_message),
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                as_json=self.json_mode,
            )
            try:
                return read(reply)
            except UnusableReply as fault:
                cause = str(fault)
        raise ScoringFault(
            f'the judge at endpoint "{endpoint.name}" gave no verdict in {READINGS} answers: {cause}. '
            "If it goes on, try another model, json_mode, or more max_tokens"
        )


def _majority(votes: list[tuple[bool, str]]) -> Judgment:
    correct = sum(verdict for verdict, _ in votes) * 2 > len(votes)
    agreeing = [reason for verdict, reason in votes if verdict is correct]
    share = f"{len(agreeing)} of {len(votes)} votes: " if len(votes) > 1 else ""
    return Judgment(correct, share + agreeing[0][:SHOWN_CHARACTERS])


def _median(votes: list[tuple[float, str]]) -> tuple[float, str]:
    return sorted(votes, key=lambda vote: vote[0])[len(votes) // 2]


def _material(reference: Any) -> Material:
    """The blocks other than the response: name and text. Raises ScoringFault for a reference that cannot be used."""
    if reference is None:
        return []
    parts = reference if isinstance(reference, dict) else {"answer": reference}
    if not parts or parts.keys() - set(PARTS):
        raise ScoringFault(f"reference must be a text, a number, null, or an object with {' or '.join(PARTS)}")
    return [(PARTS[name], _text(name, parts[name])) for name in PARTS if name in parts]


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ScoringFault(f"the reference's {name} must be a text or a number, not {type(value).__name__}")
    try:
        text = str(value)
    except ValueError as fault:  # an integer of thousands of digits
        raise ScoringFault(f"the reference's {name} cannot be written: {fault}") from fault
    if is_blank(text):
        raise ScoringFault(f"the reference's {name} is empty")
    return text
