"""Rounding is measured, what is more than rounding is said at once, and ends the run when it lasts."""

import msgspec
import pytest

from learner.control.mismatch import LEAST, LEAST_KL_NATS, MOST, MismatchAlarm, gap_bound, mismatch_bound
from services.config.weights import GlooChannel
from services.wire.weights import Gap

DEFAULTS = GlooChannel()


@pytest.mark.parametrize(
    ("measured", "bound"),
    [
        (None, MOST["bfloat16"]),
        (Gap(0.0, 0.0, 0.0), LEAST["bfloat16"]),
        (Gap(0.03, 0.08, 0.2), Gap(0.09, 0.24, 1.0)),
        (Gap(0.1, 0.25, 0.9), MOST["bfloat16"]),
    ],
)
def test_the_bound_on_a_probe_in_bfloat16_follows_what_was_measured_on_disk(measured: Gap | None, bound: Gap) -> None:
    found = gap_bound(DEFAULTS, "bfloat16", measured)
    assert msgspec.structs.astuple(found) == pytest.approx(msgspec.structs.astuple(bound))


@pytest.mark.parametrize("measured", [None, Gap(0.0, 0.0, 0.0), Gap(9e-4, 9e-4, 9e-4)])
def test_in_float32_a_thousandth_of_a_nat_is_never_rounding(measured: Gap | None) -> None:
    assert gap_bound(DEFAULTS, "float32", measured) == Gap(1e-3, 1e-3, 1e-3)


def test_bounds_that_the_user_sets_hold() -> None:
    own = GlooChannel(max_gap_nats=2.0, max_mismatch_nats=3.0)
    assert gap_bound(own, "float32", Gap(1e-6, 1e-6, 1e-6)) == Gap(2.0, 2.0, 2.0)
    assert mismatch_bound(own, "bfloat16", 1e-6) == 3.0


@pytest.mark.parametrize(("measured", "bound"), [(None, 0.01), (0.05, 0.01), (0.2, 0.04), (9.0, 0.16)])
def test_the_bound_on_fresh_tokens_in_bfloat16_is_the_square_of_what_was_measured(
    measured: float | None, bound: float
) -> None:
    assert mismatch_bound(DEFAULTS, "bfloat16", measured) == pytest.approx(bound)


def test_the_alarm_sounds_at_once_and_is_lasting_after_that_many_steps_in_a_row() -> None:
    alarm = MismatchAlarm(GlooChannel(mismatch_steps=3), "float32")
    assert alarm.observe(LEAST_KL_NATS["float32"], None) == "accepted"
    assert [alarm.observe(0.076, None) for _ in range(3)] == ["high", "high", "lasting"]
    words = alarm.words(0.076)
    assert "KL 0.076 nats a token, and rounding in float32 explains at most 0.0001 (3 of 3 steps" in words
    assert words.index("learner.packed_rows = false") < words.index("other names") < words.index("ratchet doctor")


def test_a_step_within_the_bound_begins_the_count_again_and_one_without_fresh_tokens_does_not() -> None:
    alarm = MismatchAlarm(GlooChannel(mismatch_steps=2), "float32")
    assert [alarm.observe(kl, None) for kl in (0.1, 0.0, 0.1, None, 0.1)] == [
        "high",
        "accepted",
        "high",
        "unknown",
        "lasting",
    ]


def test_a_mismatch_that_is_not_a_number_is_high() -> None:
    assert MismatchAlarm(DEFAULTS, "float32").observe(float("nan"), None) == "high"
