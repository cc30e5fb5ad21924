"""Grader `combine`: several graders judge one response, and their rewards are added up by weight.

Gates come first: when one of them is not passed, the response is incorrect, earns `gate_reward`, and the other parts are not
asked. The response is correct when every part finds it so, or, with `correct_from`, when the reward reaches that. Overlong
shaping reduces the reward of responses that come close to the length limit (DAPO, arXiv:2503.14476, equation 13).

Failure modes. Error: a part without a verdict leaves the whole without one, with the same cause, because no reward is made
of half an answer (a gate that was not passed needs no other part); an unknown grader or option in any part; overlong
shaping of a response whose number of tokens is not known.
"""

from collections.abc import Collection, Generator, Mapping
from typing import Annotated, Any, ClassVar

import msgspec

from services.overlong import overlong_punishment
from services.wire.verdict import Score
from verifier.contract import ScoreItem
from verifier.grader import BaseGrader, Judgment, LaneName, ScoringFault
from verifier.scores import scored

Name = Annotated[str, msgspec.Meta(min_length=1)]
Rounds = Generator[list[ScoreItem], list[Score], Score]
"""Yields the questions of one round, is sent a score for each, and returns the score of the whole."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the graders that are asked."""

    grader: Name
    options: dict[str, Any] = {}
    weight: float = 1.0
    """Weight of its reward in the sum. 0: it only decides whether the response is correct."""
    gate: bool = False
    """Nothing else counts unless this grader finds the response correct. Its own reward is not added."""
    reference: str | None = None
    """Name of the member of the item's reference that is the reference of this part; None: the whole reference."""
    rewards: tuple[float, float] = (0.0, 1.0)
    """The rewards that the grader's 0 and 1 stand for: [-1, 1] gives DAPO's -1 and +1."""


class Overlong(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A soft punishment: 0 up to max_tokens - buffer_tokens, then linearly down to -penalty at max_tokens."""

    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    """The longest response that the sampler lets through (L_max)."""
    buffer_tokens: Annotated[int, msgspec.Meta(ge=1)]
    """How many tokens before that the punishment begins (L_cache)."""
    penalty: Annotated[float, msgspec.Meta(ge=0.0)] = 1.0

    def __post_init__(self) -> None:
        if self.buffer_tokens > self.max_tokens:
            raise ScoringFault(
                f"option overlong: buffer_tokens = {self.buffer_tokens} is above max_tokens = {self.max_tokens}"
            )

    def reward(self, response_tokens: int) -> float:
        """What is added to the reward: from -penalty to 0."""
        bounds = {"max_tokens": self.max_tokens, "buffer_tokens": self.buffer_tokens}
        return self.penalty * overlong_punishment(response_tokens, **bounds)


class Combine(BaseGrader, frozen=True):
    version: ClassVar[str] = "1"
    lane: ClassVar[LaneName] = "parts"

    parts: Annotated[tuple[Part, ...], msgspec.Meta(min_length=1, max_length=16)]
    """The graders that are asked."""
    gate_reward: float = 0.0
    """Reward of a response that does not pass a gate."""
    correct_from: float | None = None
    """Reward, before overlong shaping, from which a response is correct; None: every part must find it correct."""
    overlong: Overlong | None = None

    def __post_init__(self) -> None:
        if nested := [part.grader for part in self.parts if part.grader == "combine"]:
            raise ScoringFault(f"option parts: {nested[0]} within combine; put its parts in directly")

    def check(self, reference: Any) -> None:
        """Raises ScoringFault when a part's own reference is missing. The parts check theirs themselves."""
        for part in self.parts:
            self._reference_of(part, reference)

    def questions(self, item: ScoreItem) -> list[ScoreItem]:
        """The question for each part, in their order. Raises ScoringFault when a part's own reference is missing."""
        return [
            ScoreItem(
                id=f"{item.id}/{number}",
                grader=part.grader,
                response=item.response,
                reference=self._reference_of(part, item.reference),
                options=part.options,
                response_tokens=item.response_tokens,
            )
            for number, part in enumerate(self.parts)
        ]

    def rounds(self, item: ScoreItem) -> Rounds:
        """Judges one item: a round for the gates, and one for the other parts if they are passed. Raises ScoringFault when
        no verdict is possible."""
        questions = self.questions(item)
        scores: dict[int, Score] = {}
        for gates in (True, False):
            numbers = [number for number, part in enumerate(self.parts) if part.gate == gates]
            answers = yield [questions[number] for number in numbers]
            scores.update(zip(numbers, answers, strict=True))
            if self._failed_gate(scores) is not None:
                break
            if (fault := _fault_among(scores.values())) is not None:
                return fault
        return scored(self._judge(scores, item.response_tokens), 0.0)

    def _reference_of(self, part: Part, reference: Any) -> Any:
        if part.reference is None:
            return reference
        if not isinstance(reference, dict) or part.reference not in reference:
            raise ScoringFault(f'the reference has no member "{part.reference}" for grader {part.grader}')
        return reference[part.reference]

    def _failed_gate(self, scores: Mapping[int, Score]) -> int | None:
        failed = (n for n, score in scores.items() if self.parts[n].gate and score.verdict == "incorrect")
        return next(failed, None)

    def _judge(self, scores: Mapping[int, Score], response_tokens: int | None) -> Judgment:
        """scores: of all parts, each with a reward; or of the gates, when one was not passed. Raises ScoringFault when the
        length is needed and not known."""
        punishment = self._punishment(response_tokens)
        failed_gate = self._failed_gate(scores)
        if failed_gate is not None:
            gate = self.parts[failed_gate]
            detail = f"gate {gate.grader}: {scores[failed_gate].detail}"
            return Judgment(False, detail, self.gate_reward + punishment)
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
        return Judgment(correct, self._detail(scores, punishment), reward + punishment)

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


def _fault_among(scores: Collection[Score]) -> Score | None:
    """A score without a verdict; an error before a timeout, because a timeout may pass by itself."""
    faults = [score for score in scores if score.reward is None]
    return min(faults, key=lambda score: score.verdict != "error", default=None)
