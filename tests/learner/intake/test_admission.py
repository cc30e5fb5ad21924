"""Admission bounds what is outstanding, and with it the lag of what is consumed in order."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from learner.intake.admission import AdmissionLimits, admissible_groups

# Long ones: Hypothesis by itself draws so few events that replicas hardly ever fall behind.
EVENTS = st.lists(st.sampled_from(["issue", "step", "confirm", "drop"]), min_size=50, max_size=200)


@given(EVENTS, st.integers(1, 4), st.integers(0, 4))
def test_no_group_is_consumed_above_the_lag_bound(events: list[str], groups_per_step: int, max_lag: int) -> None:
    limits, version, confirmed = AdmissionLimits(groups_per_step, max_lag), 0, 0
    outstanding: deque[int] = deque()  # the version it is sampled under, at worst the one confirmed when it was issued
    for event in events:
        if event == "issue":
            outstanding.extend([confirmed] * admissible_groups(limits, len(outstanding), version - confirmed))
        elif event == "confirm":
            confirmed = version
        elif event == "drop" and outstanding:
            outstanding.popleft()
        elif event == "step" and len(outstanding) >= groups_per_step:
            assert all(version - outstanding.popleft() <= max_lag for _ in range(groups_per_step))
            version += 1
        assert len(outstanding) <= (max_lag + 1) * groups_per_step


@given(st.integers(1, 8))
def test_without_lag_training_is_synchronous(groups_per_step: int) -> None:
    limits = AdmissionLimits(groups_per_step, max_lag=0)
    assert admissible_groups(limits, 0, unconfirmed_steps=0) == groups_per_step
    assert admissible_groups(limits, groups_per_step, unconfirmed_steps=0) == 0
    assert admissible_groups(limits, 0, unconfirmed_steps=1) == 0


@given(st.integers(0, 100), st.integers(1, 8), st.integers(0, 4), st.integers(0, 9))
def test_credits_are_never_negative(outstanding: int, groups_per_step: int, max_lag: int, unconfirmed: int) -> None:
    assert admissible_groups(AdmissionLimits(groups_per_step, max_lag), outstanding, unconfirmed) >= 0
