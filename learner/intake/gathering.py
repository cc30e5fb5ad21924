"""What is gathered for one learner step, and what the step is handed of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from learner.batch.sift import SiftedGroup, Tally, tally
from services.wire.score import ScoredGroup


@dataclass(frozen=True, slots=True)
class Gathered:
    """Everything consumed for one learner step."""

    groups: list[ScoredGroup]
    """In order of arrival, dropped ones included."""
    kept: list[SiftedGroup]
    """The groups that reach the loss."""
    tally: Tally
    drops: dict[str, str]
    """Group id -> why the group does not reach the loss, of the others."""
    by_source: dict[str, Tally] = field(default_factory=dict)
    """The tally of each source that has a name."""


@dataclass
class Gathering:
    """The groups of one step, as far as they have arrived. One thread at a time adds to it."""

    policy_version: int
    """The version that the step begins with: lag is counted from it."""
    groups: list[ScoredGroup] = field(default_factory=list)
    sifted: list[SiftedGroup] = field(default_factory=list)
    usable: int = 0
    """Groups that reach the loss."""

    @property
    def dropped(self) -> int:
        """Groups that do not reach the loss."""
        return len(self.groups) - self.usable

    def add(self, group: ScoredGroup, one: SiftedGroup) -> None:
        """The next group in order of arrival, and the same sifted against `policy_version`."""
        self.groups.append(group)
        self.sifted.append(one)
        self.usable += one.drop is None

    def gathered(self) -> Gathered:
        """What the step consumes."""
        kept = [one for one in self.sifted if one.drop is None]
        drops: dict[str, str] = {one.prompt.group_id: one.drop for one in self.sifted if one.drop is not None}
        return Gathered(self.groups, kept, tally(self.groups, self.sifted), drops, _by_source(self.groups, self.sifted))


def _by_source(groups: Sequence[ScoredGroup], sifted: Sequence[SiftedGroup]) -> dict[str, Tally]:
    """What was consumed of each source that has a name."""
    names = sorted({group.group.prompt.source for group in groups} - {""})
    places = {
        name: [place for place, group in enumerate(groups) if group.group.prompt.source == name] for name in names
    }
    return {
        name: tally([groups[place] for place in own], [sifted[place] for place in own]) for name, own in places.items()
    }
