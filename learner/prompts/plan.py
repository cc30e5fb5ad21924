"""The plan of a run's prompts: which problem each sequence number has, and in how large a group.

Samplers depend on what was measured, so a number alone does not say which problem it has. The plan therefore remembers the
picks of all groups that are not settled; the checkpoint holds them beside the samplers' state, and a prompt that has to be
issued again is the same prompt. Lives on rank 0.
"""

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from learner.prompts.curriculum import Curriculum
from learner.prompts.group_size import group_size
from learner.prompts.measured import Measured
from learner.prompts.mixture import Mixture
from learner.prompts.replay import Replay
from learner.prompts.sampler import Choice, Sampler, Turn
from learner.prompts.skip import awake
from learner.prompts.uniform import Uniform
from services.config import RunConfig
from services.config.prompts import SourceConfig
from services.config.samplers import CurriculumSampler, ReplaySampler, SkipConfig
from services.datasets.dataset import Problem

log = logging.getLogger("ratchet.learner")


@dataclass(frozen=True, slots=True)
class Pick:
    """What a sequence number was given."""

    source: int
    """Index of the source among config.prompts.each."""
    problem: int
    """Index of the problem among those of the source."""
    group_size: int
    in_turn: bool = True
    """See `Choice.in_turn`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A problem by what the records of a run know of it."""

    source: str
    """Name of its source; empty where there is only one."""
    row: int
    """Row in the dataset."""


class _Lane:
    """One source: its problems, what was measured of them, and its sampler."""

    def __init__(self, config: RunConfig, settings: SourceConfig, problems: Sequence[Problem]) -> None:
        seed = config.seed if not settings.name else _seed(config.seed, settings.name)
        self.settings = settings
        self.usual_size = config.sampling_of(settings).group_size
        self.rows = [problem.row for problem in problems]
        self.digest = _digest(problems)
        self.index = {row: index for index, row in enumerate(self.rows)}
        self.measured = Measured(len(problems))
        self.uniform = Uniform(seed, len(problems), shuffle=config.prompts.shuffle)
        self.sampler = self._sampler(config, seed)
        self.told_of_end = False

    def _sampler(self, config: RunConfig, seed: int) -> Sampler:
        match config.prompts.sampler:
            case ReplaySampler() as settings:
                return Replay(settings, seed, self.uniform)
            case CurriculumSampler() as settings:
                return Curriculum(settings, seed)
            case _:
                return self.uniform

    @property
    def ended(self) -> bool:
        return self.settings.epochs is not None and self.measured.draws >= self.settings.epochs * len(self.rows)

    def to_dict(self, *, with_measurements: bool) -> dict[str, Any]:
        measured = self.measured.to_dict() if with_measurements else {"draws": self.measured.draws}
        return {"problems": self.digest, "sampler": self.sampler.to_dict(), "measured": measured}

    def restore(self, saved: Mapping[str, Any]) -> None:
        if saved["problems"] != self.digest:
            log.warning(
                "source %s has other problems than the checkpoint knows: its sampler begins again",
                self.settings.name or "prompts",
            )
            return
        self.sampler.restore(saved["sampler"])
        self.measured.restore(saved["measured"])


class PromptPlan:
    """Gives each sequence number a pick, once."""

    def __init__(self, config: RunConfig, problems: Sequence[Sequence[Problem]]) -> None:
        """problems: of each source, in the order of config.prompts.each; none of them empty."""
        prompts = config.prompts
        self._settings = prompts
        self._odd_groups = config.learner.advantage.baseline == "median"
        self._lanes = [_Lane(config, settings, own) for settings, own in zip(prompts.each, problems, strict=True)]
        self._lane_of = {lane.settings.name: number for number, lane in enumerate(self._lanes)}
        self._mixture = Mixture(prompts.mixture, [lane.settings.weight for lane in self._lanes])
        self._open: dict[int, Pick] = {}
        self._measures = (
            prompts.sampler.type != "uniform" or prompts.skip != SkipConfig() or prompts.adaptive_group is not None
        )
        self.next_number = 0
        """The first sequence number that has no pick yet."""

    @property
    def shares(self) -> dict[str, float]:
        """Source -> the share of the prompts that it gets now."""
        shares = self._mixture.shares
        return {lane.settings.name: share for lane, share in zip(self._lanes, shares, strict=True)}

    @property
    def has_ended(self) -> bool:
        """Whether every source has ended, so that no number gets a pick any more."""
        return all(lane.ended for lane in self._lanes)

    def pick(self, sequence_number: int, step: int) -> Pick:
        """The pick of this number: the one that it has, or the next. step: the policy version. Raises ValueError once every
        source has ended."""
        if sequence_number not in self._open:
            self._note(sequence_number, self._next(sequence_number, step), step)
        return self._open[sequence_number]

    def take(self, sequence_number: int, place: Place, size: int, step: int) -> None:
        """The streams hold a prompt with this number, which was issued after the checkpoint that the run goes on from. One whose
        problem is not there any more gets the next pick instead, and is a stranger when it comes back."""
        chosen = self._next(sequence_number, step)
        source = self._lane_of.get(place.source)
        problem = None if source is None else self._lanes[source].index.get(place.row)
        if source is None or problem is None:
            self._note(sequence_number, chosen, step)
            return
        as_chosen = (chosen.source, chosen.problem) == (source, problem)
        self._note(sequence_number, Pick(source, problem, size, in_turn=as_chosen and chosen.in_turn), step)

    def observe(self, place: Place, pass_rate: float, reward: float, step: int) -> None:
        """A group was settled. pass_rate: fraction of correct responses. reward: mean reward before shaping. step: the policy
        version."""
        source = self._lane_of.get(place.source)
        problem = None if source is None else self._lanes[source].index.get(place.row)
        if source is None or problem is None:
            return
        self._lanes[source].measured.observe(problem, pass_rate, step)
        self._mixture.observe(source, reward)

    def place_of(self, pick: Pick) -> Place:
        """The problem of a pick, as records name it."""
        lane = self._lanes[pick.source]
        return Place(lane.settings.name, lane.rows[pick.problem])

    def to_dict(self, unsettled: Collection[int]) -> dict[str, Any]:
        """JSON values for the checkpoint. unsettled: the numbers that may have to be issued again; others are forgotten."""
        self._open = {number: self._open[number] for number in unsettled if number in self._open}
        places = {number: self.place_of(pick) for number, pick in self._open.items()}
        return {
            "next_number": self.next_number,
            "mixture": self._mixture.to_dict(),
            "sources": {lane.settings.name: lane.to_dict(with_measurements=self._measures) for lane in self._lanes},
            "open": [
                [number, places[number].source, places[number].row, pick.group_size, pick.in_turn]
                for number, pick in sorted(self._open.items())
            ],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `to_dict` gave. Of sources and problems that are not there any more nothing is taken over."""
        self.next_number = saved["next_number"]
        if list(saved["sources"]) == list(self._lane_of):
            self._mixture.restore(saved["mixture"])
        for name, own in saved["sources"].items():
            if name in self._lane_of:
                self._lanes[self._lane_of[name]].restore(own)
        for number, name, row, size, in_turn in saved["open"]:
            source = self._lane_of.get(name)
            if source is not None and row in self._lanes[source].index:
                self._open[number] = Pick(source, self._lanes[source].index[row], size, in_turn)

    def begin_after(self, issued: int) -> None:
        """Go on from a checkpoint that holds no plan, after `issued` prompts. Without one, there was one source, in epochs."""
        lane = self._lanes[0]
        for number in range(issued if len(self._lanes) == 1 else 0):
            self._open[number] = Pick(0, lane.uniform.at(number), lane.usual_size)
            lane.measured.draws += 1
        lane.uniform.restore({"place": lane.measured.draws})
        self.next_number = issued

    def _next(self, sequence_number: int, step: int) -> Pick:
        self._mixture.advance(step)
        ended = [lane.ended for lane in self._lanes]
        if all(ended):
            raise ValueError("every source has ended")
        source = self._mixture.choose(ended)
        lane = self._lanes[source]
        may_be = awake(self._settings.skip, step, lane.measured)
        choice = lane.sampler.choose(Turn(sequence_number, step), lane.measured, may_be)
        rate = float(lane.measured.rate[choice.problem])
        size = group_size(self._settings.adaptive_group, rate, lane.usual_size, odd=self._odd_groups)
        return Pick(source, choice.problem, size, choice.in_turn)

    def _note(self, sequence_number: int, pick: Pick, step: int) -> None:
        lane = self._lanes[pick.source]
        self._mixture.note(pick.source, [one.ended for one in self._lanes])
        lane.sampler.note(Choice(pick.problem, pick.in_turn), lane.measured)
        lane.measured.note(pick.problem, step)
        self._open[sequence_number] = pick
        self.next_number = max(self.next_number, sequence_number + 1)
        if lane.ended and not lane.told_of_end:
            lane.told_of_end = True
            log.warning(
                "source %s has ended after %d prompts (epochs = %s): the other sources share its weight",
                lane.settings.name,
                lane.measured.draws,
                lane.settings.epochs,
            )


def _seed(seed: int, name: str) -> int:
    """A seed of its own for each source, so that sources of one length do not go through their problems in one order."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")


def _digest(problems: Sequence[Problem]) -> str:
    """A digest of what was measured of: rows and their prompts, in order."""
    taken = hashlib.sha256()
    for problem in problems:
        taken.update(f"{problem.row} {problem.prompt!r}\n".encode())
    return taken.hexdigest()
