import json
import math

from hypothesis import given
from hypothesis import strategies as st

from learner.reference import RatchetState, Verdict, observe
from services.config.learner import ReferenceConfig

RATES = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=60)


def verdicts(settings: ReferenceConfig, rates: list[float], state: RatchetState | None = None) -> list[Verdict]:
    state, given_ = state or RatchetState(), []
    for step, rate in enumerate(rates, 1):
        state, verdict = observe(settings, state, step=step, pass_rate=rate)
        given_.append(verdict)
    return given_


@given(RATES, st.integers(1, 7))
def test_without_a_gate_it_swaps_every_k_steps_and_only_then(rates: list[float], every: int) -> None:
    got = verdicts(ReferenceConfig(every_steps=every, gated=False), rates)
    assert got == ["swap" if step % every == 0 else "not_due" for step in range(1, len(rates) + 1)]


@given(st.lists(st.floats(0, 1), max_size=60).map(sorted), st.integers(1, 7), st.integers(1, 5))
def test_a_pass_rate_that_never_falls_always_swaps(rates: list[float], every: int, smoothing: int) -> None:
    settings = ReferenceConfig(every_steps=every, smoothing_steps=smoothing, tolerance=0.0)
    assert "pass_rate_fell" not in verdicts(settings, rates)


def test_a_fall_beyond_tolerance_holds_the_reference_until_it_is_due_again() -> None:
    settings = ReferenceConfig(every_steps=2, smoothing_steps=1, tolerance=0.1)
    rates = [0.5, 0.5, 0.5, 0.3, 0.6, 0.35, 0.4, 0.4]
    assert verdicts(settings, rates)[1::2] == ["swap", "pass_rate_fell", "pass_rate_fell", "swap"]


def test_a_learner_that_collapses_before_the_first_swap_does_not_swap() -> None:
    settings = ReferenceConfig(every_steps=10, smoothing_steps=2, tolerance=0.02)
    assert verdicts(settings, [0.5] * 5 + [0.0] * 5)[-1] == "pass_rate_fell"


def test_the_state_says_which_version_the_reference_is() -> None:
    settings, state = ReferenceConfig(every_steps=2, smoothing_steps=1), RatchetState()
    for step, rate in enumerate([0.5, 0.5, 0.5, 0.0], 1):
        state, _ = observe(settings, state, step=step, pass_rate=rate)
    assert (state.reference_version, state.swaps, state.refusals) == (2, 1, 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 40), st.integers(1, 6))
def test_saved_and_resumed_is_uninterrupted(rates: list[float], cut: int, every: int) -> None:
    settings, state, resumed = ReferenceConfig(every_steps=every, smoothing_steps=3), RatchetState(), RatchetState()
    for step, rate in enumerate(rates, 1):
        state, expected = observe(settings, state, step=step, pass_rate=rate)
        if step == cut:
            resumed = RatchetState.from_dict(json.loads(json.dumps(resumed.to_dict())))
        resumed, got = observe(settings, resumed, step=step, pass_rate=rate)
        assert (got, resumed) == (expected, state)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 60))
def test_the_period_counts_optimizer_steps_and_moves_at_the_next_boundary(every: int, each: int, steps: int) -> None:
    settings, state, moved = ReferenceConfig(every_steps=every, gated=False), RatchetState(), []
    for step in range(1, steps + 1):
        state, verdict = observe(settings, state, step=step, pass_rate=0.5, optimizer_steps=each)
        moved += [step] if verdict == "swap" else []
    due = {-(-multiple // each) for multiple in range(every, steps * each + 1, every)}
    assert moved == sorted(due)
