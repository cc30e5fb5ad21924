"""A whole learner in one thread: a bigram engine, streams in memory, and every prompt answered and scored as it is issued."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from learner.evaluation import Evaluator, HeldOut
from learner.intake.collector import Collector, Sampled
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.leftovers import lost_groups
from learner.intake.step_guard import StepGuard
from learner.loop import Beginning, TrainingLoop
from learner.publish.snapshot import Snapshot, Snapshots
from learner.ranks import Team
from learner.records import Records
from services.config import RunConfig
from services.config.load import load
from services.datasets.dataset import Problem
from services.run.folder import RunFolder
from services.run.settled import last_attempt
from services.streams.stream import NEVER_SUSPECT
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import ScoredGroup
from services.wire.trajectory import Group
from tests.fakes.streams import MemoryIssueLog, MemoryStream
from tests.fakes.train_engine import BigramEngine
from tests.learner.tiny import scored_group

ROOT = Path(__file__).parents[2]
PROBLEMS = [Problem(row=row, prompt=f"{row}", reference=f"{row}", grader="exact") for row in range(5)]


def small_config(folder: Path, *overrides: str) -> RunConfig:
    """Four steps of two groups, one step ahead, and a checkpoint and an evaluation every two steps."""
    own = [
        f"runs_folder={folder}",
        "learner.steps=4",
        "learner.groups_per_step=2",
        "learner.max_lag=1",
        "learner.checkpoint={every_steps = 2, keep = 9}",
        "learner.reference={every_steps = 2, smoothing_steps = 1, roll_back = 0.1}",
        "evaluation.every_steps=2",
        "evaluation.max_prompts=2",
        "evaluation.samples_per_prompt=2",
        "deadlines.groups_s=2.0",
        "deadlines.evaluation_s=2.0",
        "rollout.sampling.group_size=2",
    ]
    return load(ROOT / "examples/addition/addition.toml", [*own, *overrides])


def token_ids(problem: Problem) -> list[int]:
    return [1 + problem.row % 3, 2]


class Replicas:
    """Stands in for the weight publisher: every version arrives at once, unless `holds` says otherwise."""

    def __init__(self) -> None:
        self.published: list[Snapshot] = []
        self.holds: int | None = None
        """The version that replicas stay at; None: they hold the newest."""
        self.fault: Exception | None = None
        self.stopping = False
        self.stop_after: int | None = None
        """The run is asked to stop as soon as this many versions have been published."""
        self.kernel_gap_nats: float | None = None
        self.generation = 0

    def publish(self, snapshot: Snapshot) -> None:
        self.stopping = self.stop_after is not None and len(self.published) + 1 >= self.stop_after
        self.published.append(snapshot)

    def wait(self) -> None: ...

    @property
    def confirmed_version(self) -> int | None:
        newest = self.published[-1].policy_version if self.published else None
        return newest if self.holds is None else self.holds

    def should_stop(self) -> bool:
        if self.fault is not None:
            raise self.fault
        return self.stopping


Rewards = Callable[[Prompt], list[float] | None]
"""The rewards of the responses to a prompt; None: no answer comes."""


def one_of_two(prompt: Prompt) -> list[float]:
    return [1.0, 0.0]


class Rooms(MemoryIssueLog):
    """Rollout and verifier: what is issued here is on `scored` at once, sampled under the version that replicas hold."""

    def __init__(self, run: "SmallRun", stream: MemoryStream) -> None:
        super().__init__(stream)
        self.stream = stream
        self._run = run
        self.prompts: list[Prompt] = []

    def issue(self, sequence_number: int, payload: bytes) -> bool:
        if not (new := super().issue(sequence_number, payload)):
            return False
        self._answer(decode(payload, Prompt))
        return new

    def issue_again(self, payload: bytes) -> None:
        super().issue_again(payload)
        self._answer(decode(payload, Prompt))

    def _answer(self, prompt: Prompt) -> None:
        self.prompts.append(prompt)
        if (rewards := self._run.rewards(prompt)) is not None:
            self._run.scored.append(encode(self.answered(prompt, rewards)))

    def first_token(self, prompt: Prompt, index: int) -> int:
        """The first token of a response; the others have none to themselves. index: of the response in its group."""
        return 3 + index

    def answered(self, prompt: Prompt, rewards: list[float]) -> ScoredGroup:
        """What comes back for a prompt."""
        version = self._run.replicas.confirmed_version or 0
        sampled = scored_group(
            prompt.sequence_number,
            rewards=rewards,
            versions=[[(version, 3)]] * len(rewards),
            responses=[[self.first_token(prompt, index), 1, 2] for index in range(len(rewards))],
        )
        group = Group(prompt=prompt, trajectories=sampled.group.trajectories, replica_id="r")
        return ScoredGroup(group=group, scores=sampled.scores, verifier_id="v")


class SmallRun:
    """The streams outlive a start of the learner, as those on a server do."""

    def __init__(
        self, config: RunConfig, rewards: Rewards = one_of_two, engine: Callable[[], BigramEngine] = BigramEngine
    ) -> None:
        self.config = config
        self.engine = engine
        self.rewards = rewards
        self.scored = MemoryStream("scored", "learner", suspect_deliveries=NEVER_SUSPECT)
        self.dead = MemoryStream("dead", "learner", suspect_deliveries=NEVER_SUSPECT)
        self.replicas = Replicas()
        self.prompts = MemoryStream("prompts")
        self.rooms = Rooms(self, self.prompts)
        self.evaluation_rooms: list[Rooms] = []
        self._starts: list[Start] = []

    def start(self, *, stop_after: int | None = None) -> "Start":
        """One start of the learner. stop_after: asked to stop once this many versions have been published."""
        self._starts.append(Start(self, stop_after))
        return self._starts[-1]

    def close(self) -> None:
        """Close the files of every start."""
        for start in self._starts:
            start.close()


class Start:
    """One start of the learner, put together as learner/__main__.py does."""

    def __init__(self, run: SmallRun, stop_after: int | None) -> None:
        config, replicas = run.config, run.replicas
        replicas.published = []
        replicas.stopping = False
        replicas.stop_after = stop_after
        self.beginning = Beginning.of(config)
        self.engine = run.engine()
        self.state = self.beginning.state
        self.scored = run.scored.as_consumer("learner")
        sampled = Sampled()
        folder = RunFolder(config.folder)
        attempt = last_attempt(folder.settled) + 1
        self.records = Records(
            folder, sampled, self.beginning.counts, attempt, policy_version=self.state.policy_version
        )
        self.settled = self.beginning.ledger.begin_record(folder.settled, attempt, self.state.policy_version)
        self.guard = StepGuard(folder.step_in_hand)
        collector = Collector(self.scored, run.dead.as_consumer("learner"), self.beginning.ledger, sampled)
        anything: Any = replicas
        self._run = run
        self._issuer = PromptIssuer(config, [PromptSource(PROBLEMS, token_ids)], run.rooms)
        self._issuer.begin(self.beginning.prompts, self.state.issued)
        self.intake = Intake(
            config,
            state=self.state,
            ledger=self.beginning.ledger,
            issuer=self._issuer,
            collector=collector,
            replicas=replicas,
            streams=[run.prompts, run.scored, run.dead],
            record=self.settled,
            guard=self.guard,
        )

        def issue_log(policy_version: int) -> Rooms:
            run.evaluation_rooms.append(Rooms(run, MemoryStream("evaluation_prompts")))
            return run.evaluation_rooms[-1]

        assert config.evaluation is not None
        held_out = HeldOut(config.evaluation, [PromptSource(PROBLEMS[:2], token_ids)], issue_log, attempt=1)
        self.evaluator = Evaluator(config, held_out, collector, replicas)
        team = Team(config, self.engine)

        self.loop = TrainingLoop(
            config,
            team=team,
            state=self.state,
            intake=self.intake,
            snapshots=Snapshots(team, config.weights, [(1, 2), (2, 1)]),
            publisher=anything,
            evaluator=self.evaluator,
            records=self.records,
            stopping=lambda: replicas.stopping,
        )

    def issue_lost(self) -> None:
        """Issue again what is not settled and on no stream."""
        issued = self._run.rooms.issued_count()
        lost = lost_groups(self.beginning.ledger, issued, [self.scored, self._run.dead])
        self._issuer.issue_again(lost, issued)

    def run(self) -> bool:
        """Load the latest checkpoint, if there is one, and train."""
        if self.beginning.checkpoint is not None:
            self.loop.load(self.beginning.checkpoint)
        self.records.begin()
        try:
            return self.loop.run()
        finally:
            self.close()

    def close(self) -> None:
        """Close its files."""
        self.records.close()
        self.settled.close()
        self.guard.close()
