"""Every group is accounted for through crashes, repeats and an emptied server, and a build that cheats is caught."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learner.intake import intake as intake_module
from learner.intake.collector import Collector, Sampled
from learner.intake.gathering import Gathered
from learner.intake.intake import Intake
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.ledger import Ledger
from learner.intake.step_guard import StepGuard
from learner.run_state import RunState
from services.command.audit import as_json, said
from services.config.load import render
from services.run import audit as audit_module
from services.run.audit import Audit, audit
from services.run.folder import RunFolder
from services.run.json_lines import JsonLines
from services.run.settled import last_attempt
from services.streams import Claim
from services.streams.names import DEAD, PROMPTS, SCORED, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.streams.stream import NEVER_SUSPECT, Entry
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup, ScoredGroup
from services.wire.trajectory import Group
from tests.learner.small_run import PROBLEMS, small_config, token_ids
from tests.learner.tiny import scored_group

LOOKS = 3
names = itertools.count()


class Replicas:
    confirmed_version: int | None = 0

    def __init__(self, state: RunState) -> None:
        self._state = state
        self.looks = 0

    @property
    def version(self) -> int:
        return self._state.policy_version

    def should_stop(self) -> bool:
        """Asked before each look at an empty stream: gathering ends where nothing more has come."""
        self.looks += 1
        return self.looks > LOOKS


class EagerStream(RedisStream):
    """Sabotage: what is claimed is acknowledged at once, before any step has it."""

    def claim(self, count: int, block_s: float) -> list[Claim]:
        claims = super().claim(count, block_s)
        self.acknowledge(claims)
        return claims


class ForgetfulLedger(Ledger):
    """Sabotage: it does not recognize what it has settled before."""

    def is_settled(self, sequence_number: int) -> bool:
        return False


class History:
    """A run in one process over a real server: rooms that do one thing at a time, and a learner that can be killed."""

    def __init__(
        self,
        folder: Path,
        connection: RedisConnection,
        *,
        scored: type[RedisStream] = RedisStream,
        ledger: type[Ledger] = Ledger,
        kills: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """kills: whether a step with this group kills the learner."""
        self.kills = kills
        name = f"history-{next(names)}"
        self.config = small_config(
            folder,
            f"name={name}",
            "deadlines.groups_s=1000",
            "learner.max_unusable_groups=9999",
            "learner.steps=9999",
        )
        self.folder = RunFolder(self.config.folder)
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.folder.settings.write_text(render(self.config), encoding="utf-8")
        self.connection = connection
        self.ledger_type = ledger
        self.scored_type = scored
        self.attempt = 0
        self.begin()

    def stream(self, name: str, consumer: str) -> RedisStream:
        return RedisStream(self.connection, self.config.name, name, consumer, 1e8)

    def begin(self) -> None:
        """A start of the learner, from the newest checkpoint. What the one before held in memory is gone."""
        saved = self.saved()
        self.attempt = last_attempt(self.folder.settled) + 1
        self.state = RunState.begin(self.config.learner)
        self.state.policy_version = saved.get("policy_version", 0)
        self.state.issued = saved.get("issued", 0)
        self.ledger = self.ledger_type.from_dict(saved["ledger"]) if saved else self.ledger_type()
        self.record = self.ledger.begin_record(self.folder.settled, self.attempt, self.state.policy_version)
        self.guard = StepGuard(self.folder.step_in_hand)
        streams = [self.stream(name, "learner") for name in (PROMPTS, TRAJECTORIES, SCORED, DEAD)]
        streams[2] = self.scored_type(
            self.connection, self.config.name, SCORED, "learner", 1e8, suspect_deliveries=NEVER_SUSPECT
        )
        replicas: Any = Replicas(self.state)
        self.replicas = replicas
        issue_log = RedisIssueLog(self.connection, streams[0])
        issuer = PromptIssuer(self.config, [PromptSource(PROBLEMS, token_ids)], issue_log)
        issuer.begin(saved.get("prompts"), self.state.issued)
        self.intake = Intake(
            self.config,
            state=self.state,
            ledger=self.ledger,
            issuer=issuer,
            collector=Collector(streams[2], streams[3], self.ledger, Sampled()),
            replicas=replicas,
            record=self.record,
            streams=streams,
            guard=self.guard,
        )
        self.intake.restore()

    def saved(self) -> dict[str, Any]:
        states = sorted(self.folder.checkpoints.glob("step-*/state.json"))
        return json.loads(states[-1].read_text(encoding="utf-8")) if states else {}

    def issue(self) -> None:
        self.replicas.confirmed_version = self.state.policy_version
        self.intake.issue()

    def sample(self, consumer: str, outcome: str) -> None:
        """outcome: hand over, bury, or die with the claim."""
        stream = self.stream(PROMPTS, consumer)
        for claim in stream.claim(1, 0.0):
            prompt = decode(claim.payload, Prompt)
            if outcome == "hand over":
                group = Group(prompt=prompt, trajectories=self.answered(prompt).group.trajectories, replica_id=consumer)
                stream.hand_over(claim, self.stream(TRAJECTORIES, consumer), encode(group))
            elif outcome == "bury":
                dead = DeadGroup(
                    prompt=prompt, group_id=prompt.group_id, stage=PROMPTS, cause="too long", payload=claim.payload
                )
                stream.hand_over(claim, self.stream(DEAD, consumer), encode(dead))

    def score(self, outcome: str) -> None:
        stream = self.stream(TRAJECTORIES, "verifier-0")
        for claim in stream.claim(1, 0.0):
            group = decode(claim.payload, Group)
            scored = ScoredGroup(group=group, scores=self.answered(group.prompt).scores, verifier_id="v")
            if outcome != "die":
                stream.hand_over(claim, self.stream(SCORED, "verifier-0"), encode(scored))

    def answered(self, prompt: Prompt) -> ScoredGroup:
        """Every fifth group has equal rewards, and is dropped."""
        return scored_group(
            prompt.sequence_number,
            rewards=[1.0, 1.0] if prompt.sequence_number % 5 == 4 else [1.0, 0.0],
            versions=[[(self.state.policy_version, 2)]] * 2,
            responses=[[1, 2], [3, 4]],
        )

    def repeat(self) -> None:
        """At least once: an entry comes a second time."""
        for payload in self.stream(SCORED, "x").peek(1):
            RedisIssueLog(self.connection, self.stream(SCORED, "x")).issue_again(payload)

    def step(self) -> None:
        """A step; where too few groups are there, a clean stop and another start, as the loop does it."""
        self.replicas.looks = 0
        self.replicas.confirmed_version = self.state.policy_version
        gathered = self.intake.gather()
        if gathered is None:
            if self.state.policy_version != self.saved().get("policy_version", 0):
                self.checkpoint()
            self.kill()
            return
        self.replicas.looks = 0
        self.intake.begin_step(gathered)
        if any(self.kills(group.prompt.sequence_number) for group in gathered.kept):
            self.kill()
            return
        self.intake.begin_ahead()  # what has come by now is gathered for the steps after this one
        end_s = time.monotonic() + 10.0
        is_trial = self.guard.trial(self.ledger.is_settled) is not None
        while not is_trial and self.replicas.looks <= LOOKS:
            assert time.monotonic() < end_s, "the thread does not look"
            time.sleep(0.001)
        self.take(gathered)

    def take(self, gathered: Gathered) -> None:
        with self.intake.lock:
            self.intake.settle(gathered, trained=True)
            self.state.policy_version += 1
        with JsonLines(self.folder.steps) as steps:
            consumed = [group.group.prompt.sequence_number for group in gathered.groups]
            steps.write(step=self.state.policy_version, attempt=self.attempt, consumed_groups=consumed)

    def checkpoint(self) -> None:
        state = {
            "policy_version": self.state.policy_version,
            "issued": self.state.issued,
            "ledger": self.intake.to_dict(),
            "prompts": self.intake.plan_to_dict(),
        }
        folder = self.folder.checkpoints / f"step-{self.state.policy_version:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
        self.intake.acknowledge(self.intake.settled_claims())

    def kill(self) -> None:
        self.close()
        self.begin()

    def close(self) -> None:
        self.intake.end_ahead()
        self.record.close()
        self.guard.close()

    def empty(self) -> None:
        """FLUSHALL, as far as this run goes."""
        for key in self.connection.execute("KEYS", f"ratchet:{self.config.name}:*"):
            self.connection.execute("DEL", key)
        self.issue()

    def drive(self, acts: Sequence[str]) -> None:
        for act in acts:
            if act.startswith("sample"):
                _, consumer, outcome = act.split(",")
                self.sample(consumer, outcome)
            elif act.startswith("score"):
                self.score(act.split(",")[1])
            else:
                getattr(self, act)()

    def look(self) -> Audit:
        return audit(self.folder.path, self.connection)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "PAUSE_S", 0.0)
    monkeypatch.setattr(intake_module, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(intake_module, "LOOK_S", 0.0)


@pytest.fixture
def histories(tmp_path: Path, redis_connection: RedisConnection) -> Iterator[Callable[..., History]]:
    made: list[History] = []

    def make(**sabotage: Any) -> History:
        made.append(History(tmp_path, redis_connection, **sabotage))
        return made[-1]

    yield make
    for one in made:
        one.close()


ROUND = ["issue", *["sample,rollout-0,hand over", "score,hand over"] * 6, "step", "step"]
ACTS = [
    "issue",
    "sample,rollout-0,hand over",
    "sample,rollout-1,hand over",
    "sample,rollout-1,die",
    "sample,rollout-0,bury",
    "score,hand over",
    "score,hand over",
    "score,die",
    "repeat",
    "step",
    "step",
    "checkpoint",
    "kill",
    "empty",
]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ACTS), min_size=5, max_size=60))
def test_every_group_is_accounted_for_whatever_dies(histories: Callable[..., History], acts: list[str]) -> None:
    run = histories()
    run.drive(["issue"])
    for at in range(0, len(acts), 12):
        run.drive(acts[at : at + 12])
        found = run.look()
        assert found.is_clean, (found.problems, acts)
        counts = found.counts()
        assert counts["issued"] == len(found.settled) + len(found.outstanding)
        assert all(found.outstanding.values()), "each outstanding group has a place"
    run.close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([*ACTS, "step", "step"]), min_size=10, max_size=60))
def test_a_group_that_kills_the_learner_costs_no_other_its_place(
    histories: Callable[..., History], acts: list[str]
) -> None:
    run = histories(kills=lambda number: number % 7 == 3)
    for at in range(0, len(acts), 12):
        run.drive([*ROUND, *acts[at : at + 12]])
        found = run.look()
        assert found.is_clean, (found.problems, acts)
        for number, one in found.settled.items():
            assert number % 7 != 3 or one.what != "trained"
            assert number % 7 == 3 or "killed the learner" not in one.why
    run.close()


def test_a_group_that_kills_the_learner_is_dead_in_the_end_and_the_audit_says_why(
    histories: Callable[..., History],
) -> None:
    run = histories(kills=lambda number: number == 3)
    run.drive(ROUND * 8)
    found = run.look()
    assert found.is_clean
    assert "killed the learner" in found.fate(3)
    assert found.settled[2].what == "trained"
    assert found.counts()["dead"] == 1
    run.close()


def test_each_group_has_its_fate_and_each_outstanding_one_its_stage(histories: Callable[..., History]) -> None:
    run = histories()
    run.drive([*ROUND, "checkpoint", *ROUND, *ROUND, "issue"])
    run.drive(["sample,rollout-0,hand over", "sample,rollout-1,die", "score,hand over"])
    found = run.look()
    assert found.is_clean
    assert found.fate(0) == "trained in step 1 of lineage 1"
    assert found.fate(4) == "dropped in step 3 of lineage 1: zero_variance"
    stages = sorted(found.fate(number) for number in found.outstanding)
    assert "outstanding: issued, claimed by rollout-1" in stages
    text = said(found, each=True)
    assert "every group is accounted for" in text
    assert "group 0: trained in step 1 of lineage 1" in text
    assert json.loads(as_json(found))["clean"] is True


def test_what_a_crash_takes_back_does_not_count_as_trained(histories: Callable[..., History]) -> None:
    run = histories()
    run.drive([*ROUND, "kill"])
    found = run.look()
    assert (found.counts()["trained"], found.starts) == (0, 2)
    assert found.taken_back >= 4
    assert found.is_clean
    run.drive(["step", "checkpoint"])
    assert run.look().fate(0) == "trained in step 1 of lineage 2"


def test_a_kill_between_an_early_drop_and_its_step_loses_and_doubles_nothing(histories: Callable[..., History]) -> None:
    """Group 4 is dropped while the second step is taken, and belongs to the third."""
    run = histories()
    through = ["sample,rollout-0,hand over", "score,hand over"]
    run.drive(["issue", *through * 4, "step", "issue", *through * 2, "step", "checkpoint"])
    assert run.look().fate(4) == "outstanding: scored, claimed by learner"
    assert run.saved()["ledger"]["dropped"] == {}
    run.drive(["kill", *ROUND, "checkpoint"])
    found = run.look()
    assert found.is_clean
    assert found.fate(4) == "dropped in step 3 of lineage 2: zero_variance"


def test_what_a_step_consumed_is_known_though_the_server_is_emptied_while_it_is_computed(
    histories: Callable[..., History],
) -> None:
    run = histories()
    run.drive([*ROUND, "issue", *["sample,rollout-0,hand over", "score,hand over"] * 6])
    run.replicas.looks = 0  # as at the beginning of a step
    gathered = run.intake.gather()
    assert gathered is not None
    assert gathered.drops == {"train-4": "zero_variance"}
    run.empty()
    run.take(gathered)
    found = run.look()
    assert found.is_clean, found.problems


def test_a_build_that_acknowledges_before_the_step_is_caught(histories: Callable[..., History]) -> None:
    run = histories(scored=EagerStream)
    run.drive(ROUND)
    found = run.look()
    assert found.problems.keys() == {"early"}
    assert "EARLY" in said(found)


def test_a_group_that_is_nowhere_is_named_lost(histories: Callable[..., History]) -> None:
    run = histories()
    run.drive(["issue"])
    stream = run.stream(PROMPTS, "thief")
    [first, second] = stream.claim(2, 0.0)
    stream.acknowledge([second])
    found = run.look()
    assert found.problems == {"lost": [1]}
    assert "LOST: 1 (1): issued, not settled, and on no stream" in said(found)
    assert json.loads(as_json(found))["problems"] == {"lost": {"count": 1, "first": [1]}}
    stream.release([first])


def test_a_group_that_was_never_issued_is_foreign_and_one_that_is_issued_meanwhile_is_not(
    histories: Callable[..., History], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = histories()

    class Hasty(RedisStream):
        def entries(self) -> Iterator[Entry]:
            if self.name == PROMPTS:
                run.issue()
            yield from super().entries()

    with monkeypatch.context() as patched:
        patched.setattr(audit_module, "RedisStream", Hasty)
        assert run.look().is_clean
    prompt = decode(run.stream(PROMPTS, "x").peek(1)[0], Prompt)
    other = msgspec.structs.replace(prompt, sequence_number=1000)
    RedisIssueLog(run.connection, run.stream(PROMPTS, "x")).issue_again(encode(other))
    assert run.look().problems == {"foreign": [1000]}


def test_a_build_without_deduplication_is_caught(histories: Callable[..., History]) -> None:
    run = histories(ledger=ForgetfulLedger)
    run.drive([*ROUND[:-1], "checkpoint", "kill", "step"])
    found = run.look()
    assert "doubled" in found.problems


def test_a_step_that_the_record_does_not_have_is_skipped(histories: Callable[..., History]) -> None:
    run = histories()
    run.drive([*ROUND, "checkpoint"])
    rows = run.folder.settled.read_text(encoding="utf-8").splitlines()
    row = json.loads(rows[1])
    row["settled"] = row["settled"][1:]
    run.folder.settled.write_text("\n".join([rows[0], json.dumps(row), *rows[2:], ""]), encoding="utf-8")
    assert run.look().problems["skipped"] == [0]


def test_without_a_server_it_says_what_it_could_not_look_at(histories: Callable[..., History]) -> None:
    run = histories()
    run.drive([*ROUND, "issue", "checkpoint"])
    found = audit(run.folder.path, None)
    assert found.is_clean
    assert found.counts()["outstanding"] == {"not known": len(found.outstanding)}
    assert "not looked at: the streams" in said(found)


def test_a_group_that_waits_far_longer_than_the_others_is_starved(histories: Callable[..., History]) -> None:
    run = histories()
    run.drive(["issue", "sample,rollout-9,die"])
    for _ in range(8):
        run.drive([*ROUND, "checkpoint"])
    found = run.look()
    assert found.starved == [0]
    assert "starved" in said(found)
