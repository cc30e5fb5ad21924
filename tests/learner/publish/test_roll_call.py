"""Who answered a question, and, after a failure, who caused it."""

from collections.abc import Iterator
from typing import Any

import pytest

from learner.publish.roll_call import RollCall
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


def asked(*batches: list[Confirmation | str]) -> RollCall:
    roll_call = RollCall(Script(*batches))  # type: ignore[arg-type]
    roll_call.ask("swapped", 3, MEMBERS, 7)
    return roll_call


def test_everybody_is_heard_in_any_order() -> None:
    answers = asked([says("b")], [], [says("a")]).collect(Deadline.after(5.0, "the test"))
    assert {answer.replica_id for answer in answers} == {"a", "b"}


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
        roll_call.collect(Deadline.after(0.05, "the test"))


def test_a_refusal_ends_the_wait_and_names_who_refused() -> None:
    roll_call = asked([says("b", fault="a digest is wrong")])
    with pytest.raises(WeightSyncError, match="replica b refused: a digest is wrong"):
        roll_call.collect(Deadline.after(5.0, "the test"))


def test_the_silent_are_at_fault_before_those_that_fail_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.publish.roll_call.LAST_WORDS_S", 0.1)
    assert asked([says("b", fault="the bytes came through a")]).at_fault(lambda: None) == {"a": "1"}


def test_those_that_refused_before_the_group_was_given_up_are_at_fault_before_those_after() -> None:
    roll_call = asked([says("b", fault="no room")], [says("a", fault="the group is gone")])
    assert roll_call.at_fault(lambda: None) == {"b": "1"}


def test_if_everybody_did_as_asked_everybody_is_left_out() -> None:
    assert asked([says("a"), says("b")]).at_fault(lambda: None) == MEMBERS


def test_an_answer_that_cannot_be_read_counts_as_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("learner.publish.roll_call.LAST_WORDS_S", 0.1)
    assert asked([says("b"), "unknown schema"]).at_fault(lambda: None) == {"a": "1"}
    assert "counts as silent: unknown schema" in caplog.text
