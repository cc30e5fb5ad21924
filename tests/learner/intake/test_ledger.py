"""The ledger settles each group once and accounts for every one that was issued."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.intake.ledger import Ledger

OUTCOMES = st.permutations(range(20)).flatmap(
    lambda order: st.tuples(
        st.just(order), st.lists(st.sampled_from(["train", "drop", "dead"]), min_size=0, max_size=20)
    )
)


def settle(ledger: Ledger, number: int, outcome: str) -> None:
    if outcome == "train":
        ledger.train(number)
    elif outcome == "drop":
        ledger.drop(number, "zero_variance")
    else:
        ledger.bury(number)


@given(OUTCOMES)
def test_issued_is_trained_and_dropped_and_dead_and_outstanding(case: tuple[list[int], list[str]]) -> None:
    order, outcomes = case
    ledger = Ledger()
    for number, outcome in zip(order, outcomes, strict=False):
        settle(ledger, number, outcome)
    ledger = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))  # as a checkpoint carries it
    counts = ledger.counts(issued=20)
    assert (
        counts["issued"] == counts["trained"] + sum(counts["dropped"].values()) + counts["dead"] + counts["outstanding"]
    )
    assert counts["trained"] == outcomes.count("train")
    assert counts["dead"] == outcomes.count("dead")
    assert set(ledger.unsettled(20)) == set(order[len(outcomes) :])
    assert all(ledger.is_settled(number) for number in order[: len(outcomes)])


@given(st.integers(0, 19), OUTCOMES)
def test_a_group_settles_once(number: int, case: tuple[list[int], list[str]]) -> None:
    order, outcomes = case
    ledger = Ledger()
    for other, outcome in zip(order, outcomes, strict=False):
        settle(ledger, other, outcome)
    if ledger.is_settled(number):
        with pytest.raises(ValueError, match="settled before"):
            ledger.train(number)


@given(OUTCOMES, st.sets(st.integers(0, 19)))
def test_what_is_exhumed_is_outstanding_until_it_is_settled_once_more(
    case: tuple[list[int], list[str]], again: set[int]
) -> None:
    order, outcomes = case
    ledger = Ledger()
    for number, outcome in zip(order, outcomes, strict=False):
        settle(ledger, number, outcome)
    dead = {number for number, outcome in zip(order, outcomes, strict=False) if outcome == "dead"}
    assert {number for number in again if ledger.exhume(number)} == again & dead
    ledger = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    assert set(ledger.unsettled(20)) == set(order[len(outcomes) :]) | (again & dead)
    assert ledger.outstanding(20) == len(ledger.unsettled(20))
    for number in again & dead:
        ledger.train(number)
    counts = ledger.counts(issued=20)
    assert (counts["dead"], counts["outstanding"]) == (len(dead - again), 20 - len(outcomes))
    assert not any(ledger.exhume(number) for number in again)
