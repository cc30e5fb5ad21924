"""Issues prompts to the replicas, as many as admission allows.

learner/prompts/ says which problem each sequence number has, and remembers it until the group is settled; the number alone
decides the seed. The stream server counts the prompts issued in the same atomic step that appends them. So issuing may be
repeated after any crash: no prompt is skipped or issued twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learner.intake.admission import AdmissionLimits, admissible_groups
from learner.intake.room import Room
from learner.prompts.plan import Place, PromptPlan
from services.config import RunConfig
from services.datasets.dataset import Problem
from services.streams import IssueLog
from services.streams.redis_connection import ServerFull
from services.wire.codec import Array, encode
from services.wire.prompt import Prompt, Trace
from services.wire.score import ScoredGroup

SEEDS = 1 << 31
TRAIN_SEED_STRIDE = 1 << 20  # the seeds of two consecutive groups are this far apart


@dataclass(frozen=True, slots=True)
class PromptSource:
    """The problems of one source."""

    problems: Sequence[Problem]
    token_ids: Callable[[Problem], Sequence[int]]
    """The rendered prompt of a problem."""


class PromptIssuer:
    """Turns credits into prompts on the stream."""

    def __init__(self, config: RunConfig, sources: Sequence[PromptSource], log: IssueLog) -> None:
        """sources: in the order of config.prompts.each."""
        self._config = config
        self._sources = sources
        self._sampling = [config.sampling_of(settings) for settings in config.prompts.each]
        self._log = log
        self._largest_group = config.largest_group
        self._room = Room()
        self._plan = PromptPlan(config, [source.problems for source in sources])

    @property
    def shares(self) -> Mapping[str, float]:
        """Source -> the share of the prompts that it gets now."""
        return self._plan.shares

    @property
    def has_ended(self) -> bool:
        """Whether every source has ended, so that nothing more is issued."""
        return self._plan.has_ended

    @property
    def chosen(self) -> int:
        """The number of prompts chosen: those issued, and those that the server had no room for."""
        return self._plan.next_number

    def issue(
        self,
        issued: int,
        outstanding_groups: Callable[[int], int],
        policy_version: int,
        confirmed_version: int,
        max_lag: int,
    ) -> int:
        """Issue what admission allows and the server has room for, and return the number issued in the whole run.

        issued: that number before, as `issued_count` gives it. outstanding_groups: maps it to how many of those are not settled.
        confirmed_version: the policy version that the replicas sample under. max_lag: how many steps ahead groups may be
        issued now; it may change from call to call.
        """
        limits = AdmissionLimits(self._config.learner.groups_per_step, max_lag)
        credits = admissible_groups(limits, outstanding_groups(issued), policy_version - confirmed_version)
        prompts: list[bytes] = []
        for number in range(issued, issued + credits):
            if self.has_ended and number >= self._plan.next_number:
                break
            prompts.append(encode(self.prompt(number, policy_version)))
        if not prompts:
            return issued
        try:
            self._log.issue_many(issued, prompts)
        except ServerFull as full:
            self._room.refused(full)
            return self._log.issued_count()
        self._room.admitted()
        return issued + len(prompts)

    def issued_count(self) -> int:
        """The number of prompts issued, as the stream server counts."""
        return self._log.issued_count()

    def begin(self, saved: Mapping[str, Any] | None, issued: int) -> None:
        """Go on from a checkpoint. saved: what `to_dict` gave; None: the checkpoint holds none. issued: as it counts."""
        if saved is not None:
            self._plan.restore(saved)
        else:
            self._plan.begin_after(issued)

    def catch_up(self, on_streams: Callable[[], Mapping[int, Trace]], policy_version: int) -> None:
        """Count in what the stream server was given after the checkpoint that the run goes on from.

        on_streams: the training groups that are on the streams by number; called if there may be any. A number that is on none
        gets the next pick: no weights have seen what it was.
        """
        issued = self._log.issued_count()
        found = on_streams() if issued > self._plan.next_number else {}
        for number in range(self._plan.next_number, issued):
            if (one := found.get(number)) is not None and one.row >= 0:
                self._plan.take(number, Place(one.source, one.row), one.group_size, policy_version)
            elif not self.has_ended:
                self._plan.pick(number, policy_version)

    def observe(self, scored: ScoredGroup, policy_version: int) -> None:
        """A group was settled: tell the samplers how often it was solved."""
        prompt, scores = scored.group.prompt, scored.scores
        passed = sum(score.verdict == "correct" for score in scores) / len(scores)
        reward = sum(score.reward or 0.0 for score in scores) / len(scores)
        self._plan.observe(Place(prompt.source, prompt.row), passed, reward, policy_version)

    def to_dict(self, unsettled: Sequence[int]) -> dict[str, Any]:
        """JSON values for the checkpoint. unsettled: sequence numbers."""
        return self._plan.to_dict(unsettled)

    def issue_again(self, lost: Sequence[int], issued: int) -> None:
        """Issue again what was issued, is not settled and is on no stream, and see that the server counts `issued` prompts.

        lost: sequence numbers. They go out before the server counts them: if this is cut short, it is done again. Raises
        ServerFull.
        """
        for number in lost:
            try:
                self._log.issue_again(encode(self.prompt(number)))
            except ServerFull as full:
                self._room.refused(full)
                raise
            self._room.admitted()
        self._log.advance(issued)

    def prompt(self, sequence_number: int, policy_version: int = 0) -> Prompt:
        """The prompt with this number: the one that it has had since it was first issued, or the next. policy_version: the
        learner's, for the next."""
        pick = self._plan.pick(sequence_number, policy_version)
        source, sampling = self._sources[pick.source], self._sampling[pick.source]
        problem = source.problems[pick.problem]
        return Prompt(
            group_id=f"train-{sequence_number}",
            sequence_number=sequence_number,
            purpose="train",
            row=problem.row,
            source=problem.source,
            token_ids=Array.of(source.token_ids(problem), "<i4"),
            group_size=pick.group_size,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            stop_token_ids=sampling.stop_token_ids,
            stop=sampling.stop,
            keep_special_tokens=sampling.keep_special_tokens,
            seed=self._seed(sequence_number),
            grader=problem.grader,
            reference=problem.reference,
            options=problem.options,
            problem=problem.prompt if self._config.environment else None,
        )

    def _seed(self, sequence_number: int) -> int:
        """The seed of a group's first trajectory. No two groups share one before 2^31 trajectories have been sampled.

        Every 2048 groups the strides come round to where they began, one group's seeds further on. The seeds of the next
        trajectories follow it (seed + i). They stay within 32 bits because torch's generator on CPU reads no more.
        """
        lap, place = divmod(sequence_number, SEEDS // TRAIN_SEED_STRIDE)
        offset = place * TRAIN_SEED_STRIDE + lap * self._largest_group
        return (self._config.seed * 1_000_003 + offset) % SEEDS
