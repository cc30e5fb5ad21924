from hypothesis import given
from hypothesis import strategies as st

from verifier.network.backoff import FIRST_PAUSE_S, LONGEST_PAUSE_S, pause_s, retry_after_s

NOON = {"date": "Sat, 21 Nov 2026 12:00:00 GMT"}


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_pauses_are_bounded_and_never_below_half_the_first(retry: int, jitter: float) -> None:
    assert FIRST_PAUSE_S / 2 <= pause_s(retry, jitter) <= LONGEST_PAUSE_S


@given(st.integers(0, 20), st.floats(0, 1, exclude_max=True))
def test_pauses_grow(retry: int, jitter: float) -> None:
    assert pause_s(retry + 1, jitter) >= pause_s(retry, jitter)


def test_calls_that_failed_together_do_not_come_back_together() -> None:
    assert len({pause_s(2, jitter / 10) for jitter in range(10)}) == 10


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert retry_after_s({"retry-after": "7"}, 0.0) == 7
    assert retry_after_s({"retry-after": " 0.5 "}, 0.0) == 0.5
    assert retry_after_s({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"} | NOON, 0.0) == 30
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 50.0) == 10


def test_a_date_that_is_over_asks_for_nothing_more() -> None:
    assert retry_after_s({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"} | NOON, 0.0) == 0


@given(
    st.one_of(st.text(), st.sampled_from(["nan", "inf", "-1", "1e400", "9" * 400, "Sat, 99 Nov 2026 12:00:00 GMT", ""]))
)
def test_any_header_gives_a_usable_number_or_none(text: str) -> None:
    found = retry_after_s({"retry-after": text, "date": text}, 0.0)
    assert found is None or 0 <= found < float("inf")
