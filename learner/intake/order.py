"""In which order the groups that have arrived go into steps: as they arrived, or as their prompts were issued.

Short responses arrive first. In order of arrival they overtake long ones, which grow old meanwhile, and which
`stale_tokens = "drop"` then drops: what is trained on is shorter, and as a rule easier, than what was issued. In order of
dispatch a step waits for the oldest group (FIFO), or is let past it by a bounded number of younger ones (windowed FIFO, as in
torchtitan, which names section 6.2.4 of MiniMax's arXiv:2605.26494 as its source):

    window 0    a group is overtaken by nobody, and no older than max_lag, unless a replica sampled under an older version than
                the confirmed one
    window W    it is overtaken by W groups at most, and may be ceil(W / groups_per_step) steps older

Only groups that reach the loss have a turn. What is dropped is not trained on in any order, so it is taken as it arrives, and its
credit comes back at once.
"""

from collections.abc import Callable

from learner.batch.sift import SiftedGroup
from services.config.learner import LearnerConfig
from services.wire.score import ScoredGroup


def window_of(settings: LearnerConfig) -> int | None:
    """How many groups that reach the loss may overtake an older one; None: any number."""
    if settings.order == "arrival":
        return None
    return int(settings.window_fraction * (settings.max_lag + 1) * settings.groups_per_step)


class Turns:
    """Says which group is next. One thread at a time asks."""

    def __init__(
        self,
        ready: Callable[[], ScoredGroup | None],
        sifted: Callable[[ScoredGroup, int], SiftedGroup],
        is_settled: Callable[[int], bool],
        window: int | None,
    ) -> None:
        """ready: takes the next group that has arrived, if there is one. sifted: `sift` against a policy version. is_settled:
        whether a sequence number is (`Collector.is_settled`). window: see `window_of`."""
        self._ready = ready
        self._sifted = sifted
        self._is_settled = is_settled
        self._window = window
        self._waiting: dict[int, ScoredGroup] = {}
        self._oldest = 0  # every number below it is settled or has gone into a step
        self._gone: dict[int, bool] = {}  # of those above it: the numbers that have, and whether they reach the loss

    @property
    def waiting(self) -> int:
        """Groups that have arrived and wait for an older one."""
        return len(self._waiting)

    @property
    def oldest(self) -> int:
        """The lowest sequence number that is neither settled nor in a step."""
        while self._oldest in self._gone or self._is_settled(self._oldest):
            self._gone.pop(self._oldest, None)
            self._oldest += 1
        return self._oldest

    def next(self, policy_version: int) -> tuple[ScoredGroup, SiftedGroup] | None:
        """The next group for the step that begins with this version, sifted against it; None: it has not arrived."""
        while (group := self._ready()) is not None:
            one = self._sifted(group, policy_version)
            if self._window is None:
                return group, one
            if one.drop is not None:
                return self._took(group, one)
            self._waiting[one.prompt.sequence_number] = group
        number = min(self._waiting, default=None)
        if number is None or self._window is None:
            return None
        if number > self.oldest and sum(self._gone.values()) >= self._window:
            return None
        group = self._waiting.pop(number)
        return self._took(group, self._sifted(group, policy_version))

    def _took(self, group: ScoredGroup, one: SiftedGroup) -> tuple[ScoredGroup, SiftedGroup]:
        number = one.prompt.sequence_number
        if number >= self.oldest:  # below it only what was dead and came back
            self._gone[number] = one.drop is None
        return group, one
