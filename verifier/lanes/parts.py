"""The lane of graders that ask other graders. It asks for the parts of all items together, round by round: each round is one
batch for the other lanes, and one look-up in the cache.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import msgspec

from services.clock import now_s
from services.wire.verdict import Score
from verifier.contract import ScoreItem
from verifier.grader import ScoringFault, build_grader
from verifier.graders.combine import Combine, Rounds
from verifier.scores import no_verdict


class PartsLane:
    def __init__(
        self,
        graders: Mapping[str, type[Combine]],
        known: Collection[str],
        ask: Callable[[Sequence[ScoreItem], str], Awaitable[list[Score]]],
    ) -> None:
        """known: names that a part may have. ask: judges the parts, for a caller."""
        self._graders = graders
        self._known = known
        self._ask = ask

    async def score(self, items: Sequence[ScoreItem], caller: str = "") -> list[Score]:
        """One score for each item, in order.

        Waits for: the other lanes.
        Until: their deadlines, in at most two rounds.
        Ended by: the scores of all parts, or cancellation by the caller.
        Metric: those of the other lanes.
        """
        start_s = now_s()
        open_items = [_OpenItem(self._rounds, item) for item in items]
        while any(one.questions for one in open_items):
            questions = [question for one in open_items for question in one.questions]
            answers = iter(await self._ask(questions, caller))
            for one in open_items:
                one.answer([next(answers) for _ in one.questions])
        return [msgspec.structs.replace(one.score, elapsed_s=now_s() - start_s) for one in open_items]

    def _rounds(self, item: ScoreItem) -> Rounds:
        grader = build_grader(self._graders[item.grader], item.options)
        for question in grader.questions(item):
            if question.grader not in self._known:
                known = ", ".join(sorted(self._known))
                raise ScoringFault(f'option parts: there is no grader "{question.grader}"; known: {known}')
        return grader.rounds(item)


class _OpenItem:
    """One item while its parts are being judged."""

    def __init__(self, begin: Callable[[ScoreItem], Rounds], item: ScoreItem) -> None:
        self.questions: list[ScoreItem] = []
        """For its parts; empty once its score is known."""
        self.score: Score
        try:
            self._rounds = begin(item)
            self._advance(lambda: next(self._rounds))
        except ScoringFault as fault:
            self.score = no_verdict(str(fault))

    def answer(self, scores: list[Score]) -> None:
        """scores: one for each question."""
        if self.questions:
            self._advance(lambda: self._rounds.send(scores))

    def _advance(self, step: Callable[[], list[ScoreItem]]) -> None:
        try:
            self.questions = step()
            while not self.questions:  # a round without questions, such as that of the gates where there are none
                self.questions = self._rounds.send([])
        except StopIteration as end:
            self.questions = []
            self.score = end.value
        except ScoringFault as fault:
            self.questions = []
            self.score = no_verdict(str(fault))
