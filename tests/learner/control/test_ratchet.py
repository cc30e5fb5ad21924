import json
import math

from hypothesis import given
from hypothesis import strategies as st

from learner.control.ratchet import EarlierReference, RatchetState, Verdict, observe
from services.config.reference import ReferenceConfig

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


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.integers(0, 40),
    st.integers(3, 6),
    st.none() | st.floats(0.1, 0.5),
)
def test_saved_and_resumed_is_uninterrupted(rates: list[float], cut: int, every: int, roll_back: float | None) -> None:
    settings = ReferenceConfig(every_steps=every, smoothing_steps=3, gated=roll_back is None, roll_back=roll_back)
    state, resumed = RatchetState(), RatchetState()
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


def test_a_step_that_was_skipped_when_it_fell_due_only_puts_it_off() -> None:
    settings, state, moved = ReferenceConfig(every_steps=10, gated=False), RatchetState(), []
    for step in range(1, 41):
        if step in (10, 20):  # skipped: nothing is observed
            continue
        state, verdict = observe(settings, state, step=step, pass_rate=0.5)
        moved += [step] if verdict == "swap" else []
    assert moved == [11, 22, 32]


# Roll-back


def test_a_swap_after_which_the_pass_rate_falls_is_taken_back_once_the_window_is_all_after_it() -> None:
    settings = ReferenceConfig(every_steps=10, smoothing_steps=3, roll_back=0.1)
    state, given_ = RatchetState(), []
    for step, rate in enumerate([0.5] * 10 + [0.0] * 12, 1):
        state, verdict = observe(settings, state, step=step, pass_rate=rate)
        given_.append(verdict)
        if verdict == "swap":
            assert state.earlier == EarlierReference(0, 0.5)
    assert (
        given_[9:] == ["swap", "not_due", "not_due", "roll_back", *["not_due"] * 6, "pass_rate_fell"] + ["not_due"] * 2
    )
    assert (state.reference_version, state.pass_rate_at_swap, state.earlier) == (0, 0.5, None)
    assert (state.swaps, state.refusals, state.roll_backs) == (1, 1, 1)


def test_the_gate_holds_against_the_reference_that_is_back() -> None:
    """0.4 when the run began, 0.8 at the swap, 0.6 since: less than at the swap, more than before it."""
    settings = ReferenceConfig(every_steps=4, smoothing_steps=1, roll_back=0.1)
    rates = [0.4, 0.4, 0.4, 0.8, 0.6, 0.6, 0.6, 0.6]
    assert verdicts(settings, rates)[3:] == ["swap", "roll_back", "not_due", "not_due", "swap"]
    kept = settings.model_copy(update={"roll_back": None})
    assert verdicts(kept, rates)[3:] == ["swap", "not_due", "not_due", "not_due", "pass_rate_fell"]


def test_a_fall_of_exactly_so_much_is_not_more() -> None:
    settings = ReferenceConfig(every_steps=5, smoothing_steps=5, tolerance=0.0, roll_back=0.1)
    assert "roll_back" not in verdicts(settings, [0.7] * 5 + [0.6] * 20)
    assert verdicts(settings, [0.7] * 5 + [0.6] * 4 + [0.59])[-1] == "roll_back"


@given(RATES, st.integers(1, 5), st.integers(0, 5), st.floats(0.03, 0.4), st.booleans())
def test_a_roll_back_returns_to_what_was_before_the_last_swap_and_only_once(
    rates: list[float], smoothing: int, more: int, roll_back: float, gated: bool
) -> None:
    settings = ReferenceConfig(
        every_steps=smoothing + more, smoothing_steps=smoothing, gated=gated, roll_back=roll_back
    )
    state, before, since = RatchetState(), None, []
    for step, rate in enumerate(rates, 1):
        was = state
        state, verdict = observe(settings, state, step=step, pass_rate=rate)
        since += [] if math.isnan(rate) else [rate]
        fell = (
            before is not None
            and was.pass_rate_at_swap is not None
            and len(since) >= smoothing
            and sum(since[-smoothing:]) / smoothing < was.pass_rate_at_swap - roll_back - 1e-9
        )
        assert verdict == "roll_back" or not fell  # whatever else is due
        if verdict == "swap":
            before, since = was, []
        elif verdict == "roll_back":
            assert before is not None  # there was a swap, and no roll-back since
            assert len(since) >= smoothing
            assert state.reference_version == before.reference_version
            assert state.roll_backs == was.roll_backs + 1
            before = None


@given(RATES, st.integers(1, 7), st.integers(1, 5), st.booleans())
def test_without_the_setting_nothing_is_taken_back_or_remembered_for_it(
    rates: list[float], every: int, smoothing: int, gated: bool
) -> None:
    settings = ReferenceConfig(every_steps=every, smoothing_steps=smoothing, gated=gated)
    state = RatchetState(earlier=EarlierReference(3, 1.0), pass_rate_at_swap=1.0, observed_since_swap=99)
    for step, rate in enumerate(rates, 1):
        state, verdict = observe(settings, state, step=step, pass_rate=rate)
        assert verdict != "roll_back"
        assert state.earlier is None


def test_a_state_from_before_there_was_a_roll_back_goes_on() -> None:
    state = RatchetState(recent=(0.5, 0.25), pass_rate_at_swap=0.5, reference_version=4, swaps=2, refusals=1)
    saved = state.to_dict()
    for key in ("roll_backs", "observed_since_swap", "earlier"):
        del saved[key]
    assert RatchetState.from_dict(saved) == state
