"""Who answered a question, and, after a failure, who caused it."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import pytest

from learner.publish.roll_call import RollCall, Stopped
from services.clock import Deadline
from services.errors import WeightSyncError, WireError
from services.wire.membership import Confirmation

MEMBERS = {"a": "1", "b": "1"}


class Script:
    """A reader that gives out one batch of messages for each read; a str is a record that cannot be read."""

    def __init__(self, *batches: list[Confirmation | str]) -> None:
        self._batches = list(batches)

    def read(self, block_s: float) -> Iterator[Confirmation]:
        for message in self._batches.pop(0) if self._batches else ():
            if isinstance(message, str):
                raise WireError(message)
            yield message


def says(replica_id: str, incarnation: str = "1", **changes: Any) -> Confirmation:
    facts = {"phase": "swapped", "pg_generation": 3, "policy_version": 7, **changes}
    return Confirmation(replica_id=replica_id, incarnation=incarnation, **facts)


def nobody(_: Mapping[str, str]) -> set[str]:
    return set()


def asked(
    *batches: list[Confirmation | str],
    lost: Callable[[Mapping[str, str]], set[str]] = nobody,
    quiet: Callable[[Mapping[str, str]], set[str]] | None = None,
    patience_s: float = 30.0,
    stopping: Callable[[], bool] = lambda: False,
    members: dict[str, str] = MEMBERS,
) -> RollCall:
    """quiet: by default those that are lost."""
    reader: Any = Script(*batches)
    roll_call = RollCall(reader, lost, quiet=quiet or lost, patience_s=patience_s, stopping=stopping)
    roll_call.ask("swapped", 3, members, 7)
    return roll_call


def only(*names: str) -> Callable[[Mapping[str, str]], set[str]]:
    return lambda asked: asked.keys() & set(names)


def done() -> "Future[None]":
    work: Future[None] = Future()
    work.set_result(None)
    return work


def collect(roll_call: RollCall, within_s: float, work: "Future[None] | None" = None) -> set[str]:
    answers = roll_call.collect(Deadline.after(within_s, "the test"), work or done(), lambda: None)
    return {answer.replica_id for answer in answers}


def test_everybody_is_heard_in_any_order() -> None:
    assert collect(asked([says("b")], [], [says("a")]), 5.0) == {"a", "b"}


@pytest.mark.parametrize(
    "other",
    [
        says("a", phase="joined"),
        says("a", pg_generation=2),
        says("a", policy_version=6),
        says("a", "an earlier start of it"),
        says("c"),
    ],
)
def test_an_answer_to_another_question_is_ignored(other: Confirmation) -> None:
    roll_call = asked([other, says("b")])
    with pytest.raises(WeightSyncError, match=r"no word of a \(swapped, generation 3\)"):
        collect(roll_call, 0.05)
    assert roll_call.others() == [other]


def test_a_refusal_ends_the_wait_and_names_who_refused() -> None:
    roll_call = asked([says("b", fault="a digest is wrong")])
    with pytest.raises(WeightSyncError, match="replica b refused: a digest is wrong"):
        collect(roll_call, 5.0)


def test_a_member_whose_lease_is_gone_is_left_behind_at_once() -> None:
    roll_call = asked([says("b")], lost=lambda members: members.keys() & {"a"})
    begun_s = time.monotonic()
    assert collect(roll_call, 30.0) == {"b"}
    assert roll_call.left_behind() == {"a": "1"}
    assert time.monotonic() - begun_s < 2.0


def test_a_member_that_does_not_renew_its_lease_is_left_behind_before_that_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    roll_call = asked([says("b")], quiet=only("a"))
    begun_s = time.monotonic()
    assert collect(roll_call, 30.0, work=Future()) == {"b"}
    assert time.monotonic() - begun_s < 3.0
    assert roll_call.absent == {"a"}
    assert "version 7: going on without a, which has not renewed its lease; it catches up by itself" in caplog.text


def test_where_one_that_does_not_renew_its_lease_holds_the_others_up_it_is_named_once_that_takes_longer_than_usual() -> (
    None
):
    members = {"a": "1", "b": "1", "c": "1"}
    everybody: list[Confirmation | str] = [says(each) for each in members]
    roll_call = asked(everybody, quiet=only("a"), members=members)
    assert collect(roll_call, 30.0) == set(members)
    roll_call.ask("swapped", 3, members, 8)
    begun_s = time.monotonic()
    with pytest.raises(WeightSyncError, match=r"no word of a \(swapped, generation 3\) and its lease was not renewed"):
        collect(roll_call, 30.0, work=Future())
    assert time.monotonic() - begun_s < 1.8  # and not HELD_UP_S, which is for what has no history
    assert roll_call.at_fault(lambda: None) == {"a": "1"}


def test_where_nobody_renews_nobody_is_named_before_the_leases_end() -> None:
    roll_call = asked(quiet=only("a", "b"))
    with pytest.raises(WeightSyncError, match=r"no word of a, b .* within its deadline"):
        collect(roll_call, 3.0, work=Future())
    assert roll_call.absent == set()


def test_a_member_that_is_late_is_left_behind_when_patience_with_it_runs_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    roll_call = asked([says("b")], patience_s=0.3)
    assert collect(roll_call, 30.0, work=Future()) == {"b"}  # the learner may still be busy sending to the late one
    assert roll_call.left_behind() == {"a": "1"}
    assert "version 7: going on without a, which is 0.3 s behind (deadlines.weight_patience_s)" in caplog.text


def test_where_nobody_can_answer_for_one_that_is_gone_it_is_named_and_blamed() -> None:
    members = {"a": "1", "b": "1", "c": "1"}
    roll_call = asked(lost=lambda asked: asked.keys() & {"a"}, members=members, patience_s=0.3)
    with pytest.raises(WeightSyncError, match=r"no word of a \(swapped, generation 3\) and its lease is gone"):
        collect(roll_call, 30.0)
    assert roll_call.at_fault(lambda: None) == {"a": "1"}


def test_without_any_member_left_nothing_is_waited_for() -> None:
    with pytest.raises(WeightSyncError, match="no word of a, b"):
        collect(asked(lost=set), 30.0)


def test_a_failure_of_the_sender_ends_the_wait() -> None:
    work: Future[None] = Future()
    work.set_exception(WeightSyncError("a member is gone"))
    with pytest.raises(WeightSyncError, match="a member is gone"):
        collect(asked([says("b")]), 30.0, work)


def test_members_that_do_not_come_to_the_meeting_are_named_before_its_deadline() -> None:
    roll_call = asked(patience_s=0.3)
    roll_call.ask("joined", 4, MEMBERS)
    roll_call.note_arrival("b")
    with pytest.raises(WeightSyncError, match=r"no word of a \(joined, generation 4\) while the others are there"):
        collect(roll_call, 30.0, work=Future())
    assert roll_call.at_fault(lambda: None) == {"a": "1"}


def test_a_run_that_stops_is_heeded_in_the_middle_of_the_wait() -> None:
    begun_s = time.monotonic()
    roll_call = asked(stopping=lambda: time.monotonic() - begun_s > 0.3)
    with pytest.raises(Stopped):
        collect(roll_call, 30.0, work=Future())
    assert time.monotonic() - begun_s < 2.0


def test_the_silent_are_at_fault_before_those_that_fail_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.publish.roll_call.LAST_WORDS_S", 0.1)
    assert asked([says("b", fault="the bytes came through a")]).at_fault(lambda: None) == {"a": "1"}


def test_those_that_refused_before_the_group_was_given_up_are_at_fault_before_those_after() -> None:
    roll_call = asked([says("b", fault="no room")], [says("a", fault="the group is gone")])
    assert roll_call.at_fault(lambda: None) == {"b": "1"}


def test_if_everybody_did_as_asked_everybody_is_left_out() -> None:
    assert asked([says("a"), says("b")]).at_fault(lambda: None) == MEMBERS


def test_where_all_are_silent_nobody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was killed cannot be told from one that is slow to notice it."""
    monkeypatch.setattr("learner.publish.roll_call.LAST_WORDS_S", 0.1)
    assert asked().at_fault(lambda: None) == {}


def test_a_lease_that_ends_while_last_words_are_awaited_names_who_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.publish.roll_call.LAST_WORDS_S", 10.0)
    begun_s = time.monotonic()

    def ends(members: Mapping[str, str]) -> set[str]:
        return members.keys() & {"a"} if time.monotonic() - begun_s > 0.3 else set()

    assert asked(lost=ends).at_fault(lambda: None) == {"a": "1"}
    assert time.monotonic() - begun_s < 3.0


def test_last_words_are_not_awaited_for_long_where_others_have_answered_before() -> None:
    roll_call = asked([says("b")])
    begun_s = time.monotonic()
    assert roll_call.at_fault(lambda: None) == {"a": "1"}
    assert time.monotonic() - begun_s < 2.0


def test_an_answer_that_cannot_be_read_counts_as_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("learner.publish.roll_call.LAST_WORDS_S", 0.1)
    assert asked([says("b"), "unknown schema"]).at_fault(lambda: None) == {"a": "1"}
    assert "counts as silent: unknown schema" in caplog.text
