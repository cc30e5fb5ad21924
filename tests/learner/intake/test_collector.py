"""What comes back to the learner: acknowledged once the ledger has settled it and not before; what cannot be used dies
once, with its name, and its credit comes back."""

import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from learner.intake.collector import Collector, Sampled
from learner.intake.ledger import Ledger
from services.clock import Deadline
from services.streams.names import DEAD, SCORED
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.wire.codec import Array, decode, encode
from services.wire.prompt import sent_again
from services.wire.score import DeadGroup, ScoredGroup
from services.wire.trajectory import VersionSpan
from tests.learner.tiny import scored_group


class Bench:
    """A collector of a run of its own, and what other rooms would append to its streams."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._run = f"collect-{uuid.uuid4().hex[:8]}"
        self.scored = self._stream(SCORED)
        self.dead = self._stream(DEAD)
        self._logs = {stream.name: RedisIssueLog(connection, stream) for stream in (self.scored, self.dead)}
        self.restart()

    def _stream(self, name: str) -> RedisStream:
        return RedisStream(self._connection, self._run, name, "learner", 1e8)

    def restart(self, ledger: Ledger | None = None) -> None:
        """From a checkpoint with this ledger, or one from before the first group."""
        self.scored = self._stream(SCORED)
        self.dead = self._stream(DEAD)
        self.ledger = Ledger.from_dict(ledger.to_dict()) if ledger else Ledger()
        self.collector = Collector(self.scored, self.dead, self.ledger, Sampled())

    def append(self, stream: RedisStream, payload: bytes) -> None:
        log = self._logs[stream.name]
        log.issue(log.issued_count(), payload)

    def next_group(self) -> str | None:
        """None once nothing is left."""
        looks: Iterator[bool] = iter([False] * 3 + [True])
        deadline = Deadline.after(30.0, "the test")
        group = self.collector.training_group(self.collector.ready_group, deadline, lambda: next(looks), lambda: 0.0)
        return group.group.prompt.group_id if group else None

    def arrive(self, *numbers: int) -> None:
        for number in numbers:
            self.append(self.scored, encode(group(number)))

    def dies(self, number: int) -> None:
        prompt = group(number).group.prompt
        dead = DeadGroup(prompt=prompt, group_id=prompt.group_id, stage="trajectories", cause="worn out", payload=b"")
        self.append(self.dead, encode(dead))

    def groups_left(self) -> list[str]:
        return [decode(payload, ScoredGroup).group.prompt.group_id for payload in self.scored.peek(100)]

    def left(self) -> int:
        """Entries on both streams once everything is acknowledged."""
        self.collector.acknowledge(self.collector.settled())
        return sum(depth.waiting + depth.pending for depth in (self.scored.depth(), self.dead.depth()))


@pytest.fixture
def bench(redis_connection: RedisConnection) -> Bench:
    return Bench(redis_connection)


def died() -> float:
    return REGISTRY.get_sample_value("ratchet_learner_groups_total", {"outcome": "dead"}) or 0.0


def group(number: int) -> ScoredGroup:
    return scored_group(number, rewards=[0.0, 1.0])


def with_first(number: int, **changes: Any) -> bytes:
    """The group, with its first trajectory changed."""
    scored = group(number)
    first, *others = scored.group.trajectories
    trajectories = (msgspec.structs.replace(first, **changes), *others)
    return encode(
        msgspec.structs.replace(scored, group=msgspec.structs.replace(scored.group, trajectories=trajectories))
    )


# What is acknowledged, and when


def test_a_stop_before_the_step_loses_no_group(bench: Bench) -> None:
    bench.arrive(0, 1, 2, 3, 4)
    assert [bench.next_group() for _ in range(3)] == ["train-0", "train-1", "train-2"]
    bench.ledger.train(0)  # a step of one group; 1 and 2 were gathered for the next, and the stop came
    bench.collector.acknowledge(bench.collector.settled())
    assert bench.groups_left() == ["train-1", "train-2", "train-3", "train-4"]
    bench.restart(bench.ledger)
    assert [bench.next_group() for _ in range(5)] == ["train-1", "train-2", "train-3", "train-4", None]


def test_what_a_checkpoint_holds_does_not_come_again(bench: Bench) -> None:
    bench.arrive(0, 1)
    for number in range(2):
        bench.next_group()
        bench.ledger.train(number)
    assert bench.left() == 0
    bench.restart(bench.ledger)
    assert bench.next_group() is None


def test_a_repeat_is_trained_on_once_whenever_it_comes(bench: Bench) -> None:
    bench.arrive(7, 7)  # while it waits
    assert bench.next_group() == "train-7"
    bench.arrive(7)  # between the step's gathering and its end
    assert bench.next_group() is None
    bench.ledger.train(7)
    bench.arrive(7)  # after it
    assert bench.next_group() is None
    assert bench.left() == 0
    assert bench.ledger.counts(8)["trained"] == 1


def test_a_dead_group_that_is_sent_round_again_is_trained_on(bench: Bench) -> None:
    bench.dies(4)
    assert bench.next_group() is None
    assert bench.ledger.counts(5)["dead"] == 1
    prompt = sent_again(group(4).group.prompt)
    again = msgspec.structs.replace(group(4), group=msgspec.structs.replace(group(4).group, prompt=prompt))
    bench.append(bench.scored, encode(again))
    assert bench.next_group() == "again-4"
    counts = bench.ledger.counts(5)
    assert (counts["dead"], counts["outstanding"]) == (0, 5)
    bench.restart(bench.ledger)  # a crash before the step: the checkpoint has it as not settled
    assert 4 in bench.ledger.unsettled(5)
    bench.ledger.train(4)
    bench.append(bench.scored, encode(again))
    assert bench.next_group() is None
    assert bench.ledger.counts(5) == {"issued": 5, "trained": 1, "dropped": {}, "dead": 0, "outstanding": 4}


def test_a_group_that_also_died_is_settled_once(bench: Bench) -> None:
    bench.arrive(3)
    assert bench.next_group() == "train-3"
    bench.dies(3)
    assert bench.next_group() is None
    assert not bench.ledger.is_settled(3)  # it is in hand: the step decides
    bench.ledger.train(3)
    bench.dies(4)
    assert bench.next_group() is None
    bench.arrive(4)  # buried before
    assert bench.next_group() is None
    assert bench.ledger.counts(5) == {"issued": 5, "trained": 1, "dropped": {}, "dead": 1, "outstanding": 3}


# What cannot be used


def of_another_schema(number: int) -> bytes:
    return msgspec.msgpack.encode(("scored-group", 99, group(number)))


def with_a_damaged_field(number: int) -> bytes:
    values = msgspec.to_builtins(group(number))
    values["group"]["trajectories"][0]["finish_reason"] = 7
    return msgspec.msgpack.encode(("scored-group", 3, values))


def without_a_reward(number: int) -> bytes:
    scored = group(number)
    first = msgspec.structs.replace(scored.scores[0], verdict="error", reward=None)
    return encode(msgspec.structs.replace(scored, scores=(first, *scored.scores[1:])))


UNUSABLE: dict[str, tuple[Callable[[int], bytes], str]] = {
    "another schema": (of_another_schema, "got scored-group schema 99"),
    "a damaged field": (with_a_damaged_field, "damaged scored-group record"),
    "spans with a gap": (lambda n: with_first(n, spans=(VersionSpan(0, 1, 2),)), "version spans"),
    "spans beyond the end": (lambda n: with_first(n, spans=(VersionSpan(0, 0, 99),)), "end at 99"),
    "no spans": (lambda n: with_first(n, spans=()), "end at 0"),
    "another array": (lambda n: with_first(n, token_ids=Array("<u8", bytes(8))), 'array dtype "<u8"'),
    "half an array": (lambda n: with_first(n, token_ids=Array("<i4", bytes(7))), "does not divide"),
    "a log-prob too few": (lambda n: with_first(n, behavior_logp=Array("<f4", b"")), "0 behavior log-probs"),
    "a score too few": (lambda n: encode(msgspec.structs.replace(group(n), scores=group(n).scores[1:])), "1 scores"),
    "no reward": (without_a_reward, 'has no reward (verdict "error") from verifier v'),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_group_that_cannot_be_used_dies_with_its_name(
    bench: Bench, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    make, cause = UNUSABLE[case]
    before = died()
    bench.append(bench.scored, make(0))
    bench.append(bench.scored, encode(group(1)))
    with caplog.at_level(logging.ERROR, "ratchet.learner"):
        assert bench.next_group() == "train-1"
        assert bench.next_group() is None
    bench.ledger.train(1)
    assert "group train-0 died at scored" in caplog.text
    assert cause in caplog.text
    assert bench.ledger.is_settled(0)
    assert bench.ledger.counts(2)["dead"] == 1
    assert died() - before == 1
    assert bench.left() == 0


def test_a_learner_that_was_killed_finds_the_dead_again(bench: Bench) -> None:
    bench.append(bench.scored, of_another_schema(0))
    for _ in range(2):
        bench.restart()
        assert bench.next_group() is None
        assert bench.ledger.counts(1)["dead"] == 1
    assert bench.left() == 0


def test_a_group_that_died_is_logged_with_its_row_of_the_dataset(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.dies(3)
    with caplog.at_level(logging.ERROR, "ratchet.learner"):
        assert bench.next_group() is None
    row = group(3).group.prompt.row
    assert f"group train-3 (dataset row {row}) died at trajectories: worn out" in caplog.text


@pytest.mark.parametrize("kind", ["prompt", "group"])
def test_the_credit_of_a_group_that_another_room_could_not_read_comes_back(bench: Bench, kind: str) -> None:
    record = group(0).group.prompt if kind == "prompt" else group(0).group
    payload = msgspec.msgpack.encode((kind, 99, record))
    dead = DeadGroup(prompt=None, group_id="1-0", stage="prompts", cause="unknown schema", payload=payload)
    bench.append(bench.dead, encode(dead))
    assert bench.next_group() is None
    assert bench.ledger.outstanding(1) == 0
    assert bench.left() == 0


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1 not a record", msgspec.msgpack.encode(("prompt", 2, {"group_id": "a"}))]
)
def test_what_does_not_say_whose_it_is_is_named_by_its_entry(
    bench: Bench, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    bench.append(bench.scored, payload)
    with caplog.at_level(logging.ERROR, "ratchet.learner"):
        assert bench.next_group() is None
    assert "does not say which group it was: its credit is lost" in caplog.text
    assert bench.ledger.outstanding(1) == 1
    assert bench.left() == 0


def test_a_dead_group_of_another_schema_is_dead_all_the_same(bench: Bench) -> None:
    dead = DeadGroup(prompt=group(0).group.prompt, group_id="train-0", stage="prompts", cause="", payload=b"")
    bench.append(bench.dead, msgspec.msgpack.encode(("dead-group", 99, dead)))
    assert bench.next_group() is None
    assert bench.ledger.outstanding(1) == 0
    assert bench.left() == 0


def test_an_evaluation_does_not_wait_for_a_result_that_cannot_be_read(bench: Bench) -> None:
    scored = group(0)
    prompt = msgspec.structs.replace(scored.group.prompt, group_id="eval-1-0-0", purpose="evaluate")
    unread = msgspec.structs.replace(scored, group=msgspec.structs.replace(scored.group, prompt=prompt))
    bench.append(bench.scored, msgspec.msgpack.encode(("scored-group", 99, unread)))
    assert bench.collector.evaluation(["eval-1-0-0"], Deadline.after(3.0, "the test"), lambda: False) == []
    assert bench.ledger.outstanding(0) == 0


def test_what_waits_for_its_checkpoint_does_not_hold_its_payload(bench: Bench) -> None:
    """Groups are large, and a checkpoint may be many steps away."""
    bench.arrive(0, 1)
    assert bench.next_group() == "train-0"
    bench.ledger.train(0)
    owed = bench.collector.settled()
    assert [(one.sequence_number, one.claim.payload) for one in owed] == [(0, b"")]
    bench.collector.acknowledge(owed)
    assert bench.scored.depth().pending == 1


def test_a_group_that_is_given_up_is_in_dead_whole_with_its_prompt_and_cause(bench: Bench) -> None:
    bench.arrive(0, 1)
    assert not bench.collector.give_up(0, "it has not come yet")
    bench.collector.look(0.0)
    assert bench.collector.give_up(0, "it killed the learner")
    (payload,) = bench.dead.peek(2)
    dead = decode(payload, DeadGroup)
    assert (dead.group_id, dead.stage, dead.cause) == ("train-0", SCORED, "it killed the learner")
    assert dead.prompt == group(0).group.prompt
    assert decode(dead.payload, ScoredGroup) == group(0)
    assert bench.next_group() == "train-1"
    assert bench.next_group() is None
    assert bench.ledger.counts(2)["dead"] == 1


def test_what_is_not_wanted_now_keeps_its_place(bench: Bench) -> None:
    bench.arrive(0, 1, 2, 3)
    bench.collector.look(0.0)
    odd = bench.collector.ready_group(lambda number: number == 2)
    assert odd is not None
    assert odd.group.prompt.sequence_number == 2
    assert bench.collector.ready_group(lambda number: number == 9) is None
    assert [bench.next_group() for _ in range(4)] == ["train-0", "train-1", "train-3", None]
