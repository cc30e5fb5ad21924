"""Groups are collected until enough of them count; what is dropped is settled at once, and its credit goes out again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from learner.intake import lost
from learner.intake.collector import LOOK_EVERY_S, Collector, Sampled
from learner.intake.drought import NoUsableGroups
from learner.intake.gathering import Gathered
from learner.intake.intake import UNCONFIRMED_LOOK_EVERY_S, Intake, SourcesEnded
from learner.intake.issuer import PromptIssuer, PromptSource
from learner.intake.ledger import Ledger
from learner.intake.source_watch import SourceWatch
from learner.run_state import RunState
from services.datasets.dataset import Problem
from services.errors import DeadlineExceeded, WeightSyncError
from services.run.waiting import Waiting
from services.wire.codec import decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup, ScoredGroup
from services.wire.trajectory import Group
from tests.fakes.streams import MemoryIssueLog, MemoryStream
from tests.learner.small_run import PROBLEMS, small_config, token_ids
from tests.learner.tiny import scored_group


class Replicas:
    """Which version they hold, and what the run is told of them."""

    def __init__(self) -> None:
        self.confirmed_version: int | None = 0
        self.fault: Exception | None = None
        self.stopping = False

    def should_stop(self) -> bool:
        if self.fault is not None:
            raise self.fault
        return self.stopping


class Bench:
    """An intake of two groups a step, one step ahead, over streams in memory."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        self.config = small_config(folder, "deadlines.groups_s=0.2", *overrides)
        self.state = RunState.begin(self.config.learner)
        self.ledger = Ledger()
        self.replicas = Replicas()
        self.prompts = MemoryStream("prompts")
        self.log = MemoryIssueLog(self.prompts)
        self.scored = MemoryStream("scored", "learner")
        self.dead = MemoryStream("dead", "learner")
        self.intake = self.made()

    def made(self, tell: Callable[[Waiting], None] = lambda _: None) -> Intake:
        return Intake(
            self.config,
            state=self.state,
            ledger=self.ledger,
            issuer=PromptIssuer(self.config, [PromptSource(PROBLEMS, token_ids)], self.log),
            collector=Collector(self.scored, self.dead, self.ledger, Sampled()),
            replicas=self.replicas,
            streams=[self.prompts, self.scored, self.dead],
            tell=tell,
        )

    def issued(self) -> list[int]:
        return [decode(payload, Prompt).sequence_number for payload in self.prompts.peek(100)]

    def arrive(self, *numbers: int, rewards: Callable[[int], list[float]] = lambda number: [1.0, 0.0]) -> None:
        for number in numbers:
            self.scored.append(encode(scored_group(number, rewards=rewards(number))))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def numbers(gathered: Gathered | None) -> tuple[list[int], list[int]]:
    """Sequence numbers of what was consumed, and of what is kept."""
    assert gathered is not None
    consumed = [group.group.prompt.sequence_number for group in gathered.groups]
    return consumed, [group.prompt.sequence_number for group in gathered.kept]


def outstanding() -> float | None:
    return REGISTRY.get_sample_value("ratchet_learner_outstanding_groups")


def test_prompts_go_out_as_far_as_what_replicas_hold_allows(bench: Bench) -> None:
    bench.replicas.confirmed_version = None
    assert bench.intake.issue() == UNCONFIRMED_LOOK_EVERY_S
    assert bench.issued() == []
    bench.replicas.confirmed_version = 0
    assert bench.intake.issue() == LOOK_EVERY_S
    assert bench.issued() == [0, 1, 2, 3]
    assert (bench.state.issued, outstanding()) == (4, 4)
    bench.state.policy_version = 1
    assert bench.intake.issue() == UNCONFIRMED_LOOK_EVERY_S  # replicas are still to take version 1
    assert bench.issued() == [0, 1, 2, 3]


def test_a_step_takes_as_many_groups_as_it_needs_and_leaves_the_rest(bench: Bench) -> None:
    bench.intake.issue()
    bench.arrive(2, 0, 1, 3)
    assert numbers(bench.intake.gather()) == ([2, 0], [2, 0])
    assert numbers(bench.intake.gather()) == ([1, 3], [1, 3])


def test_dropped_groups_are_settled_at_once_and_their_credit_goes_out(bench: Bench) -> None:
    bench.intake.issue()
    bench.arrive(0, 1, 2, 3, rewards=lambda number: [1.0, 1.0] if number in (0, 2) else [1.0, 0.0])
    gathered = bench.intake.gather()
    assert numbers(gathered) == ([0, 1, 2, 3], [1, 3])
    assert bench.issued() == [0, 1, 2, 3, 4, 5]
    assert [bench.ledger.is_settled(number) for number in range(4)] == [True, False, True, False]
    assert gathered is not None
    assert (gathered.tally.groups, gathered.tally.dropped_groups) == (4, {"zero_variance": 2})
    assert gathered.tally.pass_rate == 0.75


@pytest.mark.parametrize(("trained", "outcome"), [(True, {}), (False, {"skipped_step": 2})])
def test_after_the_step_every_group_is_settled_by_what_became_of_it(
    bench: Bench, trained: bool, outcome: dict[str, int]
) -> None:
    bench.intake.issue()
    bench.arrive(0, 1, 2, rewards=lambda number: [1.0, 1.0] if number == 1 else [1.0, 0.0])
    gathered = bench.intake.gather()
    assert gathered is not None
    bench.intake.settle(gathered, trained=trained)
    assert bench.intake.counts() == {
        "issued": 5,
        "trained": 2 if trained else 0,
        "dropped": {**outcome, "zero_variance": 1},
        "dead": 0,
        "outstanding": 2,
    }
    before = bench.scored.depth().pending
    bench.intake.acknowledge(bench.intake.settled_claims())
    assert before - bench.scored.depth().pending == 3


def test_a_stop_ends_the_wait_for_groups(bench: Bench) -> None:
    bench.replicas.stopping = True
    assert bench.intake.gather() is None


def test_weights_that_do_not_arrive_are_the_reason_that_no_groups_come(bench: Bench) -> None:
    bench.replicas.fault = WeightSyncError("nobody takes the weights")
    with pytest.raises(WeightSyncError, match="nobody takes the weights"):
        bench.intake.gather()


def test_the_deadline_holds_for_all_groups_of_a_step_together(bench: Bench) -> None:
    bench.arrive(0)
    with pytest.raises(DeadlineExceeded, match="scored groups"):
        bench.intake.gather()


def test_what_the_stream_server_has_lost_is_issued_again_at_a_start(tmp_path: Path) -> None:
    before = Bench(tmp_path)
    before.intake.issue()
    before.ledger.train(1)
    saved = before.intake.to_dict()
    after = Bench(tmp_path)  # over a server that has nothing
    after.state.issued = 4
    after.ledger = Ledger.from_dict(saved)
    after.arrive(3)
    after.intake = after.made()
    after.intake.restore()
    assert after.issued() == [0, 2]
    assert after.intake.issue()
    assert after.issued() == [0, 2, 4]  # it counts on from there


def emptied(bench: Bench) -> None:
    """What FLUSHALL does to the streams and to the count of the groups."""
    for stream in (bench.prompts, bench.scored, bench.dead):
        stream.empty()
    bench.log.empty()


def test_a_server_that_is_emptied_gets_what_is_in_nobodys_hands_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.intake.issue()
    bench.arrive(1, 0, 2)
    assert numbers(bench.intake.gather()) == ([1, 0], [1, 0])  # 2 has been claimed with them
    emptied(bench)
    bench.intake.issue()
    assert bench.issued() == [3]
    assert bench.log.issued_count() == 4
    [said] = [record.message for record in caplog.records if "Redis has lost" in record.message]
    assert "1 groups are issued again" in said


def test_entries_that_somebody_deletes_are_issued_again_while_the_learner_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lost, "COUNT_EVERY_S", 0.0)
    bench = Bench(tmp_path)
    bench.intake.issue()
    bench.prompts.empty()
    bench.arrive(0, 1, 2)
    first = bench.intake.gather()
    assert first is not None
    bench.intake.settle(first, trained=True)
    with pytest.raises(DeadlineExceeded):
        bench.intake.gather()
    assert bench.issued() == [4, 5, 3]
    assert "entries are gone from the streams" in caplog.text


def unusable(number: int) -> list[float]:
    return [0.0, 0.0]


def gathering(bench: Bench, rewards: Callable[[int], list[float]], arriving: int) -> Bench:
    """Every prompt that is issued comes back at once, up to this many."""
    answered: list[int] = []

    def answer(_: Waiting) -> None:
        fresh = [number for number in bench.issued() if number not in answered][: arriving - len(answered)]
        answered.extend(fresh)
        bench.arrive(*fresh, rewards=rewards)

    bench.intake = bench.made(tell=answer)
    bench.intake.issue()
    return bench


def test_groups_with_nothing_to_train_on_end_the_run_with_three_answers(tmp_path: Path) -> None:
    bench = gathering(Bench(tmp_path, "learner.max_unusable_groups=12", "deadlines.groups_s=30.0"), unusable, 99)
    with pytest.raises(NoUsableGroups) as ended:
        bench.intake.gather()
    said = str(ended.value)
    first = "for 12 groups there was nothing to train on: 12 equal rewards (every reward was 0)."
    assert said.splitlines()[0] == first, "it stands alone where the first line is shown"
    assert said.count(" is incorrect, reward 0; grader exact, reference ") == 3
    assert "ratchet verify" in said


def test_a_drought_of_groups_with_equal_verdicts_alone_names_the_setting(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path, "learner.max_unusable_groups=12", "deadlines.groups_s=30.0", "learner.zero_variance_of=verdict"
    )
    with pytest.raises(NoUsableGroups) as ended:
        gathering(bench, lambda number: [0.0, -0.5] if number % 4 else [0.3, 0.1 + 0.2], 99).intake.gather()
    said = str(ended.value)
    assert "12 equal rewards or verdicts (3 with 0.3, 9 with equal verdicts alone)" in said
    assert 'learner.zero_variance_of = "reward"' in said


def test_once_a_group_has_counted_ten_times_as_many_may_come_to_nothing(tmp_path: Path) -> None:
    def rewards(number: int) -> list[float]:
        return [1.0, 0.0] if number == 0 else unusable(number)

    bench = gathering(Bench(tmp_path, "learner.max_unusable_groups=2", "deadlines.groups_s=30.0"), rewards, 999)
    with pytest.raises(NoUsableGroups, match="for 20 groups there was nothing to train on"):
        bench.intake.gather()


def test_groups_that_all_die_end_the_run_with_their_causes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "learner.max_unusable_groups=20", "deadlines.groups_s=30.0")
    bench.intake.issue()
    for payload in bench.prompts.peek(2):
        prompt = decode(payload, Prompt)
        cause = "the engine refuses it: temperature"
        bench.dead.append(
            encode(DeadGroup(prompt=prompt, group_id=prompt.group_id, stage="prompts", cause=cause, payload=payload))
        )
    with pytest.raises(
        NoUsableGroups, match=r"2 groups in a row died.* for this: prompts: the engine refuses it: temperature\n"
    ):
        bench.intake.gather()


def test_what_came_to_nothing_is_part_of_the_error_when_the_deadline_passes(tmp_path: Path) -> None:
    bench = gathering(Bench(tmp_path), unusable, 3)
    with pytest.raises(
        DeadlineExceeded, match=r"scored groups \(0 of 2 there; nothing to train on in the others: 3 equal rewards"
    ):
        bench.intake.gather()


TWO = (
    'prompts={template = "none", sources = [{name = "a", epochs = 1, source = {type = "jsonl", path = "a"}}, '
    '{name = "b", epochs = 1, source = {type = "jsonl", path = "b"}}]}'
)


class TwoSources(Bench):
    """The same over two sources of two problems each, which end after one epoch."""

    def __init__(self, folder: Path) -> None:
        self.own = [[Problem(row, f"{name}{row}", "", "exact", source=name) for row in range(2)] for name in ("a", "b")]
        super().__init__(folder, TWO)

    def made(self, tell: Callable[[Waiting], None] = lambda _: None) -> Intake:
        sources = [PromptSource(problems, lambda _: [1, 2]) for problems in self.own]
        self.issuer = PromptIssuer(self.config, sources, MemoryIssueLog(self.prompts))
        return Intake(
            self.config,
            state=self.state,
            ledger=self.ledger,
            issuer=self.issuer,
            collector=Collector(self.scored, self.dead, self.ledger, Sampled()),
            replicas=self.replicas,
            streams=[self.prompts, self.scored, self.dead],
            tell=tell,
        )

    def answer(self, *numbers: int, rewards: list[float]) -> None:
        asked = {prompt.sequence_number: prompt for prompt in self.asked()}
        for number in numbers:
            made = scored_group(number, rewards=rewards)
            group = Group(prompt=asked[number], trajectories=made.group.trajectories, replica_id="r")
            self.scored.append(encode(ScoredGroup(group=group, scores=made.scores, verifier_id="v")))

    def asked(self) -> list[Prompt]:
        return [decode(payload, Prompt) for payload in self.prompts.peek(100)]


def test_each_source_has_figures_of_its_own(tmp_path: Path) -> None:
    bench = TwoSources(tmp_path)
    bench.intake.issue()
    assert [prompt.source for prompt in bench.asked()] == ["a", "b", "a", "b"]
    bench.answer(0, 2, rewards=[1.0, 0.0, 0.0, 0.0])
    bench.answer(1, rewards=[1.0, 1.0])
    bench.scored.append(bench.scored.peek(9)[0])  # a repeat
    bench.answer(3, rewards=[0.0, 1.0])
    gathered = bench.intake.gather()
    assert gathered is not None
    one, other = gathered.by_source["a"], gathered.by_source.get("b")
    assert (one.groups, one.sequences, one.mean_reward, one.dropped_groups) == (2, 8, 0.25, {})
    assert other is None
    bench.intake.settle(gathered, trained=True)
    with pytest.raises(SourcesEnded, match=r"every source of prompts.sources has ended, and step 1 has 1 of 2 groups"):
        bench.intake.gather()


def test_a_source_that_gives_nothing_is_named_once_until_it_gives_something() -> None:
    watch = SourceWatch(3)
    said = [watch.count("a", reason) for reason in ("zero_variance", "zero_variance", "stale", "stale", None, "single")]
    assert [bool(one) for one in said] == [False, False, True, False, False, False]
    assert said[2] is not None
    assert "source a: none of its last 3 groups can be trained on (2 equal rewards, 1 tokens more than" in said[2]
    assert [watch.count("", "stale") for _ in range(9)] == [None] * 9
