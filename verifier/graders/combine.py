"""Grader `combine`: several graders judge one response, and their rewards are added up by weight.

Gates come first: when one of them is not passed, the response is incorrect, earns `gate_reward`, and nobody else is asked.
The response is correct when every part finds it so, or, with `correct_from`, when the reward reaches that. Overlong
shaping takes off the reward of responses that come close to the length limit (DAPO, arXiv:2503.14476, equation 13). When
it fails:

- a part that gives no verdict leaves the whole without one, with its cause: no reward is made of half an answer. Only a
  gate that was not passed needs no other part;
- an unknown grader or an option that it does not know, in any part: error;
- overlong shaping of a response whose number of tokens is not known: error.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec

from services.wire.score import Score
from verifier.grader import BaseGrader, Judgement, Lane, ScoringFault

Name = Annotated[str, msgspec.Meta(min_length=1)]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One grader of several."""

    grader: Name
    options: dict[str, Any] = {}
    weight: float = 1.0
    """Of its reward in the sum. 0: it is only asked whether the response is correct."""
    gate: bool = False
    """Nothing else counts unless this finds the response correct. Its own reward is not added."""
    reference: str | None = None
    """Its own reference, as the name of a member of the item's; without it, it gets the whole."""
    rewards: tuple[float, float] = (0.0, 1.0)
    """What the grader's 0 and 1 stand for: [-1, 1] gives DAPO's +1 and -1."""


class Overlong(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Soft punishment: nothing up to max_tokens - buffer_tokens, then linearly down to -penalty at max_tokens."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    """The longest response that the sampler lets through (L_max)."""
    buffer_tokens: Annotated[int, msgspec.Meta(ge=1)]
    """Where the punishment begins before that (L_cache)."""
    penalty: Annotated[float, msgspec.Meta(ge=0.0)] = 1.0

    def __post_init__(self) -> None:
        if self.buffer_tokens > self.max_tokens:
            raise ScoringFault(
                f"option overlong: buffer_tokens = {self.buffer_tokens} is above max_tokens = {self.max_tokens}"
            )

    def reward(self, response_tokens: int) -> float:
        """From -penalty to 0."""
        over = response_tokens - (self.max_tokens - self.buffer_tokens)
        return -self.penalty * min(1.0, max(0, over) / self.buffer_tokens)


class Combine(BaseGrader, frozen=True):
    version: ClassVar[str] = "1"
    lane: ClassVar[Lane] = "parts"

    parts: Annotated[tuple[Part, ...], msgspec.Meta(min_length=1, max_length=16)]
    """The graders that are asked."""
    gate_reward: float = 0.0
    """Of a response that does not pass a gate."""
    correct_from: float | None = None
    """Reward, before overlong shaping, from which a response is correct; without it every part must find it so."""
    overlong: Overlong | None = None

    def __post_init__(self) -> None:
        if nested := [part.grader for part in self.parts if part.grader == "combine"]:
            raise ScoringFault(f"option parts: {nested[0]} within combine; put its parts in directly")

    def check(self, reference: Any) -> None:
        for part in self.parts:
            self.reference_of(part, reference)

    def reference_of(self, part: Part, reference: Any) -> Any:
        """Raises ScoringFault when the part's own is not there."""
        if part.reference is None:
            return reference
        if not isinstance(reference, dict) or part.reference not in reference:
            raise ScoringFault(f'the reference has no member "{part.reference}" for grader {part.grader}')
        return reference[part.reference]

    def barred_by(self, scores: Mapping[int, Score]) -> int | None:
        """A gate that was not passed."""
        return next((n for n, score in scores.items() if self.parts[n].gate and score.verdict == "incorrect"), None)

    def judge(self, scores: Mapping[int, Score], response_tokens: int | None) -> Judgement:
        """scores: of all parts, each with a reward; or of the gates, when one was not passed. Raises ScoringFault when the
        length is needed and not known."""
        punishment = self._punishment(response_tokens)
        barred_by = self.barred_by(scores)
        if barred_by is not None:
            gate = self.parts[barred_by]
            detail = f"gate {gate.grader}: {scores[barred_by].detail}"
            return Judgement(False, detail, self.gate_reward + punishment)
        reward = 0.0
        for number, score in scores.items():
            part = self.parts[number]
            if not part.gate and score.reward is not None:
                low, high = part.rewards
                reward += part.weight * (low + (high - low) * score.reward)
        if self.correct_from is None:
            correct = all(score.verdict == "correct" for score in scores.values())
        else:
            correct = reward >= self.correct_from
        return Judgement(correct, self._detail(scores, punishment), reward + punishment)

    def _punishment(self, response_tokens: int | None) -> float:
        if self.overlong is None:
            return 0.0
        if response_tokens is None:
            raise ScoringFault(
                "option overlong needs the item's response_tokens; requests of the stream worker have it"
            )
        return self.overlong.reward(response_tokens)

    def _detail(self, scores: Mapping[int, Score], punishment: float) -> str:
        wrong = [
            f"{self.parts[number].grader}: {score.detail or score.verdict}"
            for number, score in sorted(scores.items())
            if score.verdict != "correct"
        ]
        return "; ".join([*wrong, *([f"overlong {punishment:+.3g}"] if punishment else [])])


def fault_among(scores: Sequence[Score]) -> Score | None:
    """One without a verdict; an error before a timeout, because the second may pass by itself."""
    faults = [score for score in scores if score.reward is None]
    return min(faults, key=lambda score: score.verdict != "error", default=None)
