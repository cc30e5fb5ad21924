"""Every rule for stale tokens keeps what a rule promises, and settings and rules name the same ones."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.batch.stale import RULES, Rule, is_stale
from services.config.learner import LearnerConfig
from tests.learner.tiny import scored_group

TWO = [np.array([True, False]), np.array([False, False, False])]


def test_settings_and_rules_name_the_same() -> None:
    assert set(get_args(LearnerConfig.model_fields["stale_tokens"].annotation)) == set(RULES)


@given(st.lists(st.lists(st.booleans(), max_size=5), min_size=1, max_size=4), st.sampled_from(sorted(RULES)))
def test_a_rule_drops_the_group_or_answers_for_every_token_and_touches_no_fresh_response(
    stale: list[list[bool]], rule: str
) -> None:
    counting = RULES[rule]([np.array(tokens, dtype=np.bool_) for tokens in stale])
    if counting is None:
        assert any(any(tokens) for tokens in stale)
        return
    assert [(len(counts), counts.dtype.name) for counts in counting] == [(len(tokens), "bool") for tokens in stale]
    assert all(bool(counts.all()) for counts, tokens in zip(counting, stale, strict=True) if not any(tokens))


@pytest.mark.parametrize(
    ("rule", "counting"),
    [
        (RULES["train"], [[True, True], [True, True, True]]),
        (RULES["drop"], None),
        (RULES["mask"], [[False, True], [True, True, True]]),
    ],
)
def test_what_each_rule_does_with_one_stale_token(rule: Rule, counting: list[list[bool]] | None) -> None:
    found = rule(TWO)
    assert (None if found is None else [counts.tolist() for counts in found]) == counting


def test_a_token_is_stale_above_the_bound_and_not_at_it() -> None:
    (trajectory, _) = scored_group(
        0, rewards=[1.0, 0.0], responses=[[1, 2, 3], [4]], versions=[[(1, 1), (2, 1), (3, 1)], [(4, 1)]]
    ).group.trajectories
    assert is_stale(trajectory, 4, 2).tolist() == [True, False, False]
    assert is_stale(trajectory, 0, 2).tolist() == [False, False, True]  # versions that a restart took back
    assert is_stale(trajectory, 2, 0).tolist() == [True, False, True]
