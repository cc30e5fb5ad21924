"""A run without processes: the real intake over streams in memory, and replicas that sample a token at a time.

Whatever a run can do to the age of a token happens here at random: replicas swap weights in the middle of a response, are
suspended or left behind, lose prompts to others and finish them all the same; entries are doubled; prompts die and are sent round
again; the learner goes back to a checkpoint while replicas hold the weights that it gives up. Every token has an id of its own,
and the world knows under which version it was sampled, whatever the records say.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learner.intake.collector import Collector, Sampled
from learner.intake.gathering import Gathered
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.ledger import Ledger
from learner.run_state import RunState
from services.streams import Claim
from services.wire.codec import Array, decode, encode
from services.wire.prompt import Prompt, sent_again
from services.wire.score import DeadGroup, ScoredGroup
from services.wire.trajectory import Group, Trajectory, VersionSpan
from services.wire.verdict import Score
from tests.fakes.streams import MemoryIssueLog, MemoryStream
from tests.learner.small_run import PROBLEMS, small_config, token_ids

IDLE_S = 60.0
MOST_EVENTS = 5_000
"""A step that has not come together after this many events never will: it is this bound that ends it, not the clock."""


class Ready(MemoryStream):
    """A stream that is never waited for: time passes only in the world. The learner gets all that it held before a restart."""

    def claim(self, count: int, block_s: float) -> list[Claim]:
        if self.consumer == "learner":  # whatever it is, it kills nobody
            for entry in self._log.entries.values():
                entry.deliveries = 0
        return super().claim(count, 0.0)

    def as_consumer(self, consumer: str) -> "Ready":
        return Ready(self.name, consumer, self.reclaim_idle_s, now_s=self._now_s, log=self._log)


@dataclass
class Answer:
    """A group on its way: for each response the version of each token, and its id."""

    claim: Claim
    prompt: Prompt
    tokens: list[list[tuple[int, int]]]


@dataclass
class Replica:
    prompts: MemoryStream
    scored: MemoryStream
    dead: MemoryStream
    version: int = 0
    suspended: bool = False
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Checkpoint:
    state: dict[str, Any]
    ledger: dict[str, Any]
    plan: dict[str, Any]


class World:
    """The test is the training loop: `step` takes one."""

    def __init__(self, folder: Path, seed: int, *overrides: str, calm: bool = False) -> None:
        """calm: replicas never fall behind, and nothing dies, is suspended or goes back to a checkpoint."""
        self.random = random.Random(seed)
        self.calm = calm
        self.config = small_config(
            folder, "learner.steps=999", "learner.max_unusable_groups=99999", "deadlines.groups_s=86400.0", *overrides
        )
        self.clock_s = 0.0
        self.born: list[int] = []
        """Token id -> the policy version that sampled it."""
        self.died: set[int] = set()
        self.equal: set[int] = set()
        """Sequence numbers of the groups that came back with equal rewards."""
        self.most_out = 0
        """The most groups that were issued, and neither trained on nor back with equal rewards. Without restarts alone."""
        self.restarts = 0
        self.prompts = self._stream("prompts")
        self.scored = self._stream("scored")
        self.dead = self._stream("dead")
        self.log = MemoryIssueLog(self.prompts)
        self.replicas = [self._replica(f"rollout-{index}") for index in range(3)]
        self.confirmed_version: int | None = 0
        self._events = 0
        self.begin(None)
        self.saved = [self.checkpoint()]

    def _stream(self, name: str) -> MemoryStream:
        return Ready(name, "learner", IDLE_S, now_s=lambda: self.clock_s)

    def _replica(self, consumer: str) -> Replica:
        return Replica(
            prompts=self.prompts.as_consumer(consumer),
            scored=self.scored.as_consumer(consumer),
            dead=self.dead.as_consumer(consumer),
        )

    def should_stop(self) -> bool:
        return False

    def begin(self, saved: Checkpoint | None) -> None:
        """A start of the learner."""
        settings = self.config.learner
        self.state = RunState.begin(settings) if saved is None else RunState.from_dict(settings, saved.state)
        self.ledger = Ledger() if saved is None else Ledger.from_dict(saved.ledger)
        self.scored = self.scored.as_consumer("learner")
        self.dead = self.dead.as_consumer("learner")
        issuer = PromptIssuer(self.config, [PromptSource(PROBLEMS, token_ids)], self.log)
        self.intake = Intake(
            self.config,
            state=self.state,
            ledger=self.ledger,
            issuer=issuer,
            collector=Collector(self.scored, self.dead, self.ledger, Sampled()),
            replicas=self,
            streams=[self.prompts, self.scored, self.dead],
        )
        self.taken: list[int] = []
        """Sequence numbers that this start has trained on, in order."""
        if saved is not None:
            issuer.begin(saved.plan, self.state.issued)
            self.intake.restore()

    def checkpoint(self) -> Checkpoint:
        settled = self.intake.settled_claims()
        saved = Checkpoint(self.state.to_dict(), self.intake.to_dict(), self.intake.plan_to_dict())
        if self.random.random() < 0.7:  # else it is killed in between
            self.intake.acknowledge(settled)
        return saved

    def step(self) -> Gathered:
        """Gather for a step, with looks ahead and everything else in between, and count it as taken."""
        self.intake.issue()
        self._events = 0
        gathered = self.intake.gather(self.meanwhile)
        assert gathered is not None
        return gathered

    def finish(self, gathered: Gathered) -> None:
        for _ in range(self.random.randrange(4)):
            self.happen()
            self.intake.look_ahead()
            out = self.log.issued_count() - len(self.taken) - len(self.equal)
            self.most_out = max(self.most_out, out)
        self.taken += [group.prompt.sequence_number for group in gathered.kept]
        self.intake.settle(gathered, trained=True)
        self.state.policy_version += 1
        if self.random.random() < 0.3:
            self.saved.append(self.checkpoint())
        if not self.calm and self.random.random() < 0.15:
            self._restart()

    def _restart(self) -> None:
        """After some time that the next start does not know of; the newest checkpoints may be damaged."""
        for _ in range(self.random.randrange(40)):
            self.happen()
            self.intake.issue()
        self.restarts += 1
        self.confirmed_version = None
        del self.saved[self.random.randint(max(1, len(self.saved) - 2), len(self.saved)) :]
        self.begin(self.saved[-1])

    def meanwhile(self) -> None:
        """What the others do between two looks of the learner: at last they come to an end."""
        self._events += 1
        assert self._events < MOST_EVENTS, "a step never comes together"
        for _ in range(self.random.randrange(3)):
            self.happen()
        if self._events % 20 == 0:
            self._swap_everywhere()
            for replica in self.replicas:
                replica.suspended = False
                self._claim(replica)
                self._finish(replica)
                while replica.answers and self._events % 200 == 0:
                    self._finish(replica)

    def happen(self) -> None:
        """One event."""
        replica = self.random.choice(self.replicas)
        events: list[Callable[[Replica], None]] = [self._claim, self._sample, self._sample, self._finish, self._swap]
        if not self.calm:
            events += [self._suspend, self._kill_prompt, self._pass_time, self._double, self._send_again]
        if replica.suspended:
            events = [self._suspend, self._pass_time]
        self.random.choice(events)(replica)

    def _claim(self, replica: Replica) -> None:
        for claim in replica.prompts.claim(self.random.randint(1, 3), 0.0):
            prompt = decode(claim.payload, Prompt)
            replica.answers.append(Answer(claim, prompt, [[] for _ in range(prompt.group_size)]))

    def _sample(self, replica: Replica) -> None:
        for answer in replica.answers:
            for tokens in answer.tokens:
                for _ in range(self.random.randrange(3)):
                    self._sample_one(replica, tokens)

    def _sample_one(self, replica: Replica, tokens: list[tuple[int, int]]) -> None:
        tokens.append((replica.version, len(self.born)))
        self.born.append(replica.version)

    def _finish(self, replica: Replica) -> None:
        """Any of them; every fourth prompt has long responses, which others overtake."""
        if not replica.answers:
            return
        place = self.random.randrange(len(replica.answers))
        if replica.answers[place].prompt.sequence_number % 4 == 1 and self.random.random() < 0.85:
            place = self.random.randrange(len(replica.answers))
            if replica.answers[place].prompt.sequence_number % 4 == 1 and self._events % 200:
                return
        answer = replica.answers.pop(place)
        for tokens in answer.tokens:
            if not tokens:
                self._sample_one(replica, tokens)
        replica.prompts.hand_over(answer.claim, replica.scored, encode(self._scored(answer)))

    def _scored(self, answer: Answer) -> ScoredGroup:
        equal = self.random.random() < 0.3
        if equal:
            self.equal.add(answer.prompt.sequence_number)
        rewards = [1.0 if equal else float(index % 2) for index in range(len(answer.tokens))]
        scores = [Score(verdict="correct" if r else "incorrect", reward=r, detail="", elapsed_s=0.0) for r in rewards]
        group = Group(prompt=answer.prompt, trajectories=tuple(map(_trajectory, answer.tokens)), replica_id="r")
        return ScoredGroup(group=group, scores=tuple(scores), verifier_id="v")

    def _swap(self, replica: Replica) -> None:
        """In the middle of whatever is sampled. The version may count as confirmed although a replica was left behind."""
        if self.calm or self.random.random() < 0.3:
            self._swap_everywhere()
        else:
            replica.version = self.state.policy_version
            if self.random.random() < 0.5:
                self.confirmed_version = self.state.policy_version

    def _swap_everywhere(self) -> None:
        for replica in self.replicas:
            replica.version = self.state.policy_version
        self.confirmed_version = self.state.policy_version

    def _suspend(self, replica: Replica) -> None:
        replica.suspended = not replica.suspended

    def _pass_time(self, replica: Replica) -> None:
        """Those that are suspended renew no claim, and others get their prompts."""
        self.clock_s += IDLE_S / 2 + 1.0
        for one in self.replicas:
            if not one.suspended:
                one.prompts.renew([answer.claim for answer in one.answers])

    def _kill_prompt(self, replica: Replica) -> None:
        if not replica.answers or self.random.random() < 0.7:
            return
        answer = replica.answers.pop()
        prompt = answer.prompt
        dead = DeadGroup(
            prompt=prompt, group_id=prompt.group_id, stage="prompts", cause="c", payload=answer.claim.payload
        )
        if replica.prompts.hand_over(answer.claim, replica.dead, encode(dead)):
            self.died.add(prompt.sequence_number)

    def _send_again(self, replica: Replica) -> None:
        """As the page does, with the prompt of a number that died."""
        if self.died and self.random.random() < 0.3:
            number = self.random.choice(sorted(self.died))
            for payload in self.dead.peek(99):
                prompt = decode(payload, DeadGroup).prompt
                if prompt is not None and prompt.sequence_number == number:
                    replica.prompts.append(encode(sent_again(prompt)))
                    return

    def _double(self, replica: Replica) -> None:
        for payload in self.scored.peek(1):
            replica.scored.append(payload)


def _trajectory(tokens: list[tuple[int, int]]) -> Trajectory:
    spans: list[VersionSpan] = []
    for place, (version, _) in enumerate(tokens):
        if spans and spans[-1].policy_version == version:
            spans[-1] = VersionSpan(version, spans[-1].start, place + 1)
        else:
            spans.append(VersionSpan(version, place, place + 1))
    return Trajectory(
        token_ids=Array.of([token for _, token in tokens], "<i4"),
        behavior_logp=Array.of([-1.0] * len(tokens), "<f4"),
        spans=tuple(spans),
        finish_reason="stop",
        text="",
    )
