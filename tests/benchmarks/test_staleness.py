"""The measurement of bias runs the learner's own intake, and finds what there is to find."""

import pytest

from benchmarks.staleness import RULES, SPEEDS, one_run

SLOW = SPEEDS["slow"]


@pytest.mark.parametrize("rule", RULES)
def test_in_order_of_dispatch_everything_that_is_issued_is_trained_on(rule: str) -> None:
    row = one_run(rule, "dispatch", 1, SLOW, 0, 14)
    assert (row.groups, row.tokens, row.length, row.long_tenth) == (1.0, 1.0, 1.0, 1.0)
    assert row.pass_rate == 0.0
    assert row.oldest <= 1


def test_in_order_of_arrival_dropping_prefers_what_is_short_and_easy() -> None:
    row = one_run("drop", "arrival", 1, SLOW, 0, 14)
    assert row.oldest <= 1
    assert row.groups < 0.9
    assert row.length < 0.9
    assert row.hard < 1.0
    assert row.pass_rate > 0.01


def test_masking_keeps_the_groups_and_loses_tokens_and_training_on_all_is_older() -> None:
    masked, trained = (one_run(rule, "arrival", 1, SLOW, 0, 14) for rule in ("mask", "train"))
    assert (masked.oldest, trained.oldest > 1) == (1, True)
    assert trained.tokens == 1.0
    assert masked.tokens < 0.95
