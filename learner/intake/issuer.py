"""Issues prompts to the replicas, as many as admission allows.

The sequence number decides everything about a prompt (its row, its seed), and the stream server counts the prompts issued in
the same atomic step that appends them. So issuing may be repeated after any crash: no prompt is skipped or issued twice.
"""

from collections.abc import Callable, Sequence

from learner.intake.admission import AdmissionLimits, admissible_groups
from services.config import RunConfig
from services.datasets.dataset import Problem, PromptCursor
from services.streams import IssueLog
from services.wire.codec import Array, encode
from services.wire.prompt import Prompt

SEEDS = 1 << 31
TRAIN_SEED_STRIDE = 1 << 20  # the seeds of two consecutive groups are this far apart


class PromptIssuer:
    """Turns credits into prompts on the stream."""

    def __init__(
        self,
        config: RunConfig,
        problems: Sequence[Problem],
        token_ids: Callable[[Problem], Sequence[int]],
        log: IssueLog,
    ) -> None:
        self._config = config
        self._problems = problems
        self._token_ids = token_ids
        self._log = log
        self._cursor = PromptCursor(config.seed, len(problems), shuffle=config.prompts.shuffle)

    def issue(
        self, outstanding_groups: Callable[[int], int], policy_version: int, confirmed_version: int, max_lag: int
    ) -> int:
        """Issue what admission allows and return the number issued in the whole run.

        outstanding_groups: maps the number issued so far to how many of those are not settled. confirmed_version: the policy
        version that the replicas sample under. max_lag: how many steps ahead groups may be issued now; it may change from
        call to call.
        """
        issued = self._log.issued_count()
        limits = AdmissionLimits(self._config.learner.groups_per_step, max_lag)
        credits = admissible_groups(limits, outstanding_groups(issued), policy_version - confirmed_version)
        for _ in range(credits):
            self._log.issue(issued, encode(self.prompt(issued)))
            issued += 1
        return issued

    def issued_count(self) -> int:
        """The number of prompts issued, as the stream server counts."""
        return self._log.issued_count()

    def issue_again(self, lost: Sequence[int], issued: int) -> None:
        """Issue again what was issued, is not settled and is on no stream, and see that the server counts `issued` prompts.

        lost: sequence numbers. They go out before the server counts them: if this is cut short, it is done again.
        """
        for number in lost:
            self._log.issue_again(encode(self.prompt(number)))
        self._log.advance(issued)

    def prompt(self, sequence_number: int) -> Prompt:
        """The prompt at this place in the run: a function of seed and number alone."""
        _, row = self._cursor.at(sequence_number)
        problem, sampling = self._problems[row], self._config.rollout.sampling
        return Prompt(
            group_id=f"train-{sequence_number}",
            sequence_number=sequence_number,
            purpose="train",
            row=problem.row,
            token_ids=Array.of(self._token_ids(problem), "<i4"),
            group_size=sampling.group_size,
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
        offset = place * TRAIN_SEED_STRIDE + lap * self._config.rollout.sampling.group_size
        return (self._config.seed * 1_000_003 + offset) % SEEDS
