"""What each rule for stale tokens, and each order, does to which problems are trained on.

    python -m benchmarks.staleness                       # every rule, order and lag, three seeds: some minutes of one core
    python -m benchmarks.staleness --seeds 1 --steps 20 --lags 2
    python -m benchmarks.staleness --json staleness.json

Hard problems have long responses: the pass rate p of a problem is uniform in (0, 1), and a response is lognormal around a
median of 100 x exp(2 (0.5 - p)) tokens with a sigma of 0.8, half of its variance shared by the group; no more than 3,000. An
engine of 1,024 sequences samples them, each at the same speed, and swaps weights in the middle of them. It is a fake on a
virtual clock, as the step is, which takes 10 s for 16 groups of 8; weights are confirmed 1 s later. Credits, streams,
collector, order, sifting with its rule for stale tokens, ledger and issuing are the run's own. All rewards are kept, whether
they differ or not, so that nothing but age decides.

Two engines: fast, at 40 tokens a second, most groups take less than a step, and single ones five; slow, at 10 a second,
sampling is the bottleneck, and a common group takes three steps. Figures are of the groups issued after the first ones and
settled by the end, trained on against issued: `length`, the mean response; `hard`, the share of problems with p below 0.2;
`long tenth`, of the longest tenth of groups those that are trained on; `pass rate`; `tokens`, the share of the sampled tokens
that count in the loss; `lag`, the mean of those tokens and the oldest; `waiting`, the share of time in which the learner
waits for groups; `steps/min`. Intervals are of 95 % (t over seeds).
"""

import argparse
import heapq
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks.samplers import interval
from learner.batch.sift import SiftedGroup
from learner.intake.collector import Collector, Sampled
from learner.intake.gathering import Gathered
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.ledger import Ledger
from learner.run_state import RunState
from services.config import RunConfig
from services.config.load import load
from services.datasets.dataset import Problem
from services.streams import Claim
from services.wire.codec import Array, decode, encode
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from services.wire.trajectory import Group, Trajectory, VersionSpan
from services.wire.verdict import Score
from tests.fakes.streams import MemoryIssueLog, MemoryStream

ROOT = Path(__file__).parents[1]
PROBLEMS, GROUPS, GROUP_SIZE = 4000, 16, 8
STEP_S, SYNC_S, SEQUENCES = 10.0, 1.0, 1024
LONGEST = 3000
SPEEDS = {"fast": 40.0, "slow": 10.0}  # tokens a second, of each sequence
RULES = ("drop", "mask", "train")
ORDERS = {
    "arrival": (),
    "dispatch": ("learner.order=dispatch",),
    "dispatch, window 0.3": ("learner.order=dispatch", "learner.window_fraction=0.3"),
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a group turns out to be, whenever it is sampled."""

    pass_rate: float
    lengths: tuple[int, ...]


class Tasks:
    """The problems of one seed, and the responses of each group by its sequence number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._pass_rates = np.random.default_rng([seed, 0]).uniform(size=PROBLEMS)

    def draw(self, prompt: Prompt) -> Drawn:
        rng = np.random.default_rng([self._seed, 1, prompt.sequence_number])
        rate = float(self._pass_rates[prompt.row])
        spread = 0.8 * np.sqrt(0.5) * (rng.normal() + rng.normal(size=prompt.group_size))
        lengths = np.clip(100.0 * np.exp(2.0 * (0.5 - rate) + spread), 1, LONGEST).astype(int)
        return Drawn(rate, tuple(lengths.tolist()))


class Ready(MemoryStream):
    """A stream that is never waited for: time passes in the world alone."""

    def claim(self, count: int, block_s: float) -> list[Claim]:
        return super().claim(count, 0.0)

    def as_consumer(self, consumer: str) -> "Ready":
        return Ready(self.name, consumer, self.reclaim_idle_s, now_s=self._now_s, log=self._log)


class World:
    """The engine and the clock. Events are what ends: a response, a group, or the swap of a version."""

    def __init__(self, tasks: Tasks, speed: float) -> None:
        self._tasks = tasks
        self._speed = speed
        self.now_s = 0.0
        self.prompts = self._stream("prompts")
        self.scored = self._stream("scored")
        self.dead = self._stream("dead")
        self._claiming = self.prompts.as_consumer("engine")
        self._handing = self.scored.as_consumer("engine")
        self._free = SEQUENCES
        self._may_claim = True
        self._swapped_s = [0.0]  # policy version -> when the engine swapped it in
        self._order = itertools.count()
        self._events: list[tuple[float, int, int, tuple[Claim, ScoredGroup, float] | None]] = []
        self.confirmed_version: int | None = 0
        self.drawn: dict[int, Drawn] = {}

    def _stream(self, name: str) -> Ready:
        return Ready(name, "learner", 1e9, now_s=lambda: self.now_s)

    def should_stop(self) -> bool:
        return False

    def publish(self, version: int) -> None:
        """The version is in the engine, and confirmed, SYNC_S from now."""
        self._push(self.now_s + SYNC_S, version, None)

    def issued(self) -> None:
        """The learner may have issued prompts."""
        self._may_claim = True

    def arrive(self) -> None:
        """Go on until a group ends, or a version is confirmed."""
        while not self.advance():
            pass

    def next_s(self) -> float:
        """When something ends next."""
        self._claim()
        return self._events[0][0] if self._events else float("inf")

    def advance(self) -> bool:
        """Go on to what ends next; whether it matters to the learner."""
        self._claim()
        if not self._events:
            raise RuntimeError("nothing is under way, and the learner waits")
        self.now_s, _, count, done = heapq.heappop(self._events)
        if done is None and count < 0:
            self._free += 1
            return False
        self._may_claim = True
        if done is None:
            self._swapped_s.append(self.now_s)
            self.confirmed_version = count
        else:
            claim, group, began_s = done
            self._claiming.hand_over(claim, self._handing, encode(self._aged(group, began_s)))
        return True

    def _push(self, at_s: float, count: int, done: tuple[Claim, ScoredGroup, float] | None) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), count, done))

    def _claim(self) -> None:
        while self._may_claim and self._free >= GROUP_SIZE:
            if not (claims := self._claiming.claim(1, 0.0)):
                self._may_claim = False
                return
            prompt = decode(claims[0].payload, Prompt)
            drawn = self._tasks.draw(prompt)
            self.drawn[prompt.sequence_number] = drawn
            self._free -= GROUP_SIZE
            for length in drawn.lengths:
                self._push(self.now_s + length / self._speed, -1, None)
            self._push(
                self.now_s + max(drawn.lengths) / self._speed, -1, (claims[0], self._sampled(prompt, drawn), self.now_s)
            )

    def _sampled(self, prompt: Prompt, drawn: Drawn) -> ScoredGroup:
        """The group without its versions, which are known when it ends."""
        rng = np.random.default_rng([prompt.seed])
        right = rng.uniform(size=len(drawn.lengths)) < drawn.pass_rate
        scores = [
            Score(verdict="correct" if one else "incorrect", reward=float(one), detail="", elapsed_s=0.0)
            for one in right
        ]
        group = Group(
            prompt=prompt, trajectories=tuple(_trajectory(length, ()) for length in drawn.lengths), replica_id="r"
        )
        return ScoredGroup(group=group, scores=tuple(scores), verifier_id="v")

    def _aged(self, scored: ScoredGroup, began_s: float) -> ScoredGroup:
        lengths = [len(trajectory) for trajectory in scored.group.trajectories]
        trajectories = tuple(_trajectory(length, self._spans(began_s, length)) for length in lengths)
        group = Group(prompt=scored.group.prompt, trajectories=trajectories, replica_id="r")
        return ScoredGroup(group=group, scores=scored.scores, verifier_id="v")

    def _spans(self, began_s: float, length: int) -> tuple[VersionSpan, ...]:
        """Each token has the version that the engine held when it was sampled."""
        at_s = began_s + np.arange(length) / self._speed
        versions = np.searchsorted(self._swapped_s, at_s, side="right") - 1
        starts = [0, *(np.flatnonzero(np.diff(versions)) + 1).tolist()]
        return tuple(
            VersionSpan(int(versions[start]), start, end) for start, end in itertools.pairwise([*starts, length])
        )


def _trajectory(length: int, spans: tuple[VersionSpan, ...]) -> Trajectory:
    return Trajectory(
        token_ids=Array.of(np.zeros(length), "<i4"),
        behavior_logp=Array.of(np.zeros(length), "<f4"),
        spans=spans,
        finish_reason="stop",
        text="",
    )


@dataclass(frozen=True)
class Row:
    """One run. See the head of this module."""

    length: float
    hard: float
    long_tenth: float
    pass_rate: float
    groups: float
    tokens: float
    lag: float
    oldest: float
    waiting: float
    steps_min: float


HEADS = {
    "length": 2,
    "hard": 2,
    "long_tenth": 2,
    "pass_rate": 3,
    "groups": 2,
    "tokens": 2,
    "lag": 2,
    "oldest": 1,
    "waiting": 2,
    "steps_min": 2,
}


class Run:
    """The training loop, on the world's clock."""

    def __init__(self, config: RunConfig, seed: int, speed: float) -> None:
        self._config = config
        self.world = World(Tasks(seed), speed)
        self.state = RunState.begin(config.learner)
        self.ledger = Ledger()
        problems = [Problem(row=row, prompt=f"{row}", reference="", grader="exact") for row in range(PROBLEMS)]
        streams = [self.world.prompts, self.world.scored, self.world.dead]
        self.intake = Intake(
            config,
            state=self.state,
            ledger=self.ledger,
            issuer=PromptIssuer(config, [PromptSource(problems, lambda _: [1, 2])], MemoryIssueLog(self.world.prompts)),
            collector=Collector(self.world.scored, self.world.dead, self.ledger, Sampled()),
            replicas=self.world,
            streams=streams,
        )
        self.trained: dict[int, list[int]] = {}  # sequence number -> the tokens that count of each response
        self.lag_tokens: dict[int, int] = {}
        self.waited_s = 0.0

    def steps(self, count: int) -> None:
        world = self.world
        for _ in range(count):
            self.intake.issue()
            world.issued()
            began_s = world.now_s
            gathered = self.intake.gather(world.arrive)
            assert gathered is not None
            self.waited_s += world.now_s - began_s
            end_s = world.now_s + STEP_S
            while world.next_s() <= end_s:
                if world.advance():
                    self.intake.look_ahead()
            world.now_s = end_s
            self._count(gathered)
            self.intake.settle(gathered, trained=True)
            self.intake.acknowledge(self.intake.settled_claims())
            self.state.policy_version += 1
            world.publish(self.state.policy_version)

    def _count(self, gathered: Gathered) -> None:
        for group in gathered.kept:
            self.trained[group.prompt.sequence_number] = [sum(one.mask) for one in group.kept]
            self._count_lags(group)

    def _count_lags(self, group: SiftedGroup) -> None:
        for one in group.kept:
            counts = np.frombuffer(one.mask, dtype=bool)
            lags = self.state.policy_version - one.trajectory.policy_versions()[counts]
            for lag, tokens in zip(*np.unique(lags, return_counts=True), strict=True):
                self.lag_tokens[int(lag)] = self.lag_tokens.get(int(lag), 0) + int(tokens)

    def row(self) -> Row:
        """What became of the groups from the first that was issued to a full queue to the last below which all are settled."""
        first = 3 * (self._config.learner.max_lag + 1) * GROUPS
        issued = [self.world.drawn[number] for number in range(first, self._watermark())]
        trained = [number for number in range(first, self._watermark()) if number in self.trained]
        kept = [self.world.drawn[number] for number in trained]
        long = float(np.quantile([max(one.lengths) for one in issued], 0.9))
        counted = [tokens for number in trained for tokens in self.trained[number]]
        lags, tokens = (np.array(column) for column in zip(*sorted(self.lag_tokens.items()), strict=True))
        return Row(
            length=_mean_length(kept) / _mean_length(issued),
            hard=_share_hard(kept) / _share_hard(issued),
            long_tenth=_count_long(kept, long) / _count_long(issued, long),
            pass_rate=_pass_rate(kept) - _pass_rate(issued),
            groups=len(kept) / len(issued),
            tokens=sum(counted) / sum(sum(one.lengths) for one in issued),
            lag=float(np.average(lags, weights=tokens)),
            oldest=float(lags.max()),
            waiting=self.waited_s / self.world.now_s,
            steps_min=60.0 * self.state.policy_version / self.world.now_s,
        )

    def _watermark(self) -> int:
        return min(self.ledger.unsettled(self.state.issued), default=self.state.issued)


def _mean_length(groups: Sequence[Drawn]) -> float:
    return float(np.mean([length for one in groups for length in one.lengths]))


def _share_hard(groups: Sequence[Drawn]) -> float:
    return float(np.mean([one.pass_rate < 0.2 for one in groups]))


def _count_long(groups: Sequence[Drawn], bound: float) -> int:
    return sum(max(one.lengths) >= bound for one in groups)


def _pass_rate(groups: Sequence[Drawn]) -> float:
    return float(np.mean([one.pass_rate for one in groups]))


def one_run(rule: str, order: str, max_lag: int, speed: float, seed: int, steps: int) -> Row:
    """What one run came to."""
    with tempfile.TemporaryDirectory() as folder:
        own = [
            f"runs_folder={folder}",
            f"seed={seed}",
            "learner.steps=99999",
            f"learner.groups_per_step={GROUPS}",
            f"learner.max_lag={max_lag}",
            f"learner.stale_tokens={rule}",
            "learner.zero_variance=train",
            "learner.max_unusable_groups=99999",
            f"rollout.sampling.group_size={GROUP_SIZE}",
            *ORDERS[order],
        ]
        run = Run(load(ROOT / "examples/addition/addition.toml", own), seed, speed)
        run.steps(steps)
        return run.row()


def table(found: dict[tuple[str, int, str, str], list[Row]]) -> Iterator[str]:
    """Lines in Markdown: a table for each engine."""
    for engine in dict.fromkeys(key[0] for key in found):
        yield f"\n{engine} engine:\n"
        yield f"| max_lag | order | stale_tokens | {' | '.join(head.replace('_', ' ') for head in HEADS)} |"
        yield "|---" * (3 + len(HEADS)) + "|"
        for (where, lag, order, rule), rows in found.items():
            if where == engine:
                cells = [interval([getattr(row, head) for row in rows], digits) for head, digits in HEADS.items()]
                yield f"| {lag} | {order} | {rule} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=list(SPEEDS), default=list(SPEEDS))
    parser.add_argument("--lags", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    parser.add_argument("--orders", nargs="+", choices=list(ORDERS), default=list(ORDERS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: dict[tuple[str, int, str, str], list[Row]] = {}
    for engine, lag, order, rule in itertools.product(asked.engines, asked.lags, asked.orders, asked.rules):
        runs = [one_run(rule, order, lag, SPEEDS[engine], seed, asked.steps) for seed in range(asked.seeds)]
        found[engine, lag, order, rule] = runs
        print(engine, lag, order, rule, asdict(runs[0]), file=sys.stderr, flush=True)
    print("\n".join(table(found)))
    if asked.json:
        keys = ("engine", "max_lag", "order", "stale_tokens")
        rows = [
            dict(zip(keys, key, strict=True))
            | {each.name: [getattr(row, each.name) for row in runs] for each in fields(Row)}
            for key, runs in found.items()
        ]
        asked.json.write_text(json.dumps({"steps": asked.steps, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
