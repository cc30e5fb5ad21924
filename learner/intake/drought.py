"""What came back since the last group that counted, and whether it is still worth waiting for one.

Problems that are always solved or never, a grader that no response satisfies, a verifier that reaches nobody: in each case
groups come and go, and no step is ever taken. The first step tells most: until a group has counted the run ends soon;
later, when the data are known to teach something, it waits ten times as long.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from learner.batch.sift import SiftedGroup
from learner.objective.baseline import all_equal
from services.errors import InputError
from services.numbers import count
from services.wire.score import ScoredGroup

LATER = 10
"""How many times as many groups may come to nothing once one has counted."""
DEAD_SHARE = 10
"""A dead group is worth this many dropped ones: it was tried several times, by every room that could."""
SHOWN = 3
SHOWN_CHARACTERS = 200
WORDS = {
    "zero_variance": "equal rewards",
    "single": "fewer than two responses left",
    "stale": "tokens more than learner.max_lag versions away",
    "truncated": "responses cut by max_tokens",
    "non_finite": "responses with log-probs that are not finite",
    "empty": "responses without a token",
    "dead": "died",
}


class NoUsableGroups(InputError):
    """Nothing that came back can be trained on, and more of it would not help."""


@dataclass
class Drought:
    """Counts since the last group that counted. Lives on rank 0, in the intake."""

    limit: int
    """learner.max_unusable_groups."""
    has_counted: bool = False
    """Whether any group of this run has reached a loss."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> groups."""
    sequences: Counter[str] = field(default_factory=Counter)
    """Reason -> responses that were left out of their groups."""
    rewards: Counter[float] = field(default_factory=Counter)
    """Reward -> groups in which every response had it."""
    shaped: int = 0
    """Groups dropped for equal verdicts, though their rewards differ."""
    dead: int = 0
    """Groups that died since one came back scored."""
    causes: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN))
    answers: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN))

    def count_usable(self) -> None:
        """A group reaches the loss: begin again."""
        self.has_counted = True
        for counts in (self.dropped, self.sequences, self.rewards):
            counts.clear()
        self.dead = 0
        self.shaped = 0

    def count_dropped(self, scored: ScoredGroup, sifted: SiftedGroup) -> None:
        """A group came back and does not reach the loss. Raises NoUsableGroups when that was the last one to wait for."""
        self.dead = 0
        self.dropped[sifted.drop or ""] += 1
        self.sequences.update(sifted.dropped_sequences)
        rewards = [score.reward or 0.0 for score in scored.scores]
        if all_equal(rewards):
            self.rewards[float(f"{rewards[0]:g}")] += 1
        elif sifted.drop == "zero_variance" and not sifted.dropped_sequences:
            self.shaped += 1
        self.answers.append(_answer(scored))
        if self.dropped.total() >= self._limit():
            shown = "\n".join(f"  {answer}" for answer in self.answers)
            raise NoUsableGroups(
                f"for {count(self.dropped.total())} groups there was nothing to train on: {self.said()}.\n"
                f"The last answers and their verdicts:\n{shown}\n{self._advice()} learner.max_unusable_groups = {self.limit} "
                "says how many may come to nothing"
            )

    def count_dead(self, causes: Sequence[str]) -> None:
        """Groups died. Raises NoUsableGroups when these were the last ones to wait for."""
        self.dead += len(causes)
        self.causes.extend(causes)
        if causes and self.dead * DEAD_SHARE >= self._limit():
            last, *earlier = dict.fromkeys(reversed(self.causes))
            shown = "".join(f"\n  before it: {cause}" for cause in earlier)
            raise NoUsableGroups(
                f"{count(self.dead)} groups in a row died, and none came back; the last one for this: {last}{shown}\n"
                f"learner.max_unusable_groups = {self.limit} says how many may come to nothing, a dead one counting for "
                f"{DEAD_SHARE}"
            )

    def said(self) -> str:
        """The counts, in words; empty when nothing has come to nothing."""
        facts = [
            f"{count(groups)} {WORDS[reason]}{self._which(reason)}" for reason, groups in self.dropped.most_common()
        ]
        facts += [
            f"{count(sequences)} {WORDS[reason]}"
            for reason, sequences in self.sequences.most_common()
            if reason not in self.dropped
        ]
        if self.dead:
            facts.append(f"{count(self.dead)} {WORDS['dead']} ({self.causes[-1][:SHOWN_CHARACTERS]})")
        return ", ".join(facts)

    def _which(self, reason: str) -> str:
        if reason != "zero_variance" or not (self.rewards or self.shaped):
            return ""
        if len(self.rewards) == 1 and not self.shaped:
            return f" (every reward was {next(iter(self.rewards)):g})"
        facts = [f"{count} with {reward:g}" for reward, count in self.rewards.most_common(3)]
        if self.shaped:
            facts.append(f"{self.shaped} with equal verdicts alone")
        return f"{' or verdicts' if self.shaped else ''} ({', '.join(facts)})"

    def _limit(self) -> int:
        return self.limit * LATER if self.has_counted else self.limit

    def _advice(self) -> str:
        reason = max({**self.dropped, **self.sequences}.items(), key=lambda counted: counted[1])[0]
        if self.sequences["truncated"]:
            return "Responses are cut before they end: raise rollout.sampling.max_tokens."
        if reason == "stale":
            return "Groups arrive too late: raise learner.max_lag, or lower rollout.max_concurrent_sequences."
        if reason != "zero_variance":
            return "See the learner's log."
        if self.shaped > self.rewards.total():
            return (
                "Rewards differ where verdicts do not: if they are graded, not shaped, set "
                'learner.zero_variance_of = "reward".'
            )
        if set(self.rewards) == {1.0}:
            return "The model solves all of these: take harder problems."
        return (
            "If the answers are right, the grader or the references do not fit them (try `ratchet verify`); if they are wrong, "
            "take easier problems or a better model, or say in prompts.system_prompt how to answer."
        )


def _answer(scored: ScoredGroup) -> str:
    prompt, text = scored.group.prompt, scored.group.trajectories[0].text
    score = scored.scores[0]
    reward = "no reward" if score.reward is None else f"reward {score.reward:g}"
    told = f" ({score.detail[:SHOWN_CHARACTERS]})" if score.detail else ""
    shortened = (
        text
        if len(text) <= SHOWN_CHARACTERS
        else f"{text[: SHOWN_CHARACTERS // 2]} ... {text[-SHOWN_CHARACTERS // 2 :]}"
    )
    reference = repr(prompt.reference)
    return (
        f"row {prompt.row}: {shortened!r} is {score.verdict}, {reward}{told}; grader {prompt.grader}, reference "
        f"{reference[:SHOWN_CHARACTERS]}"
    )
