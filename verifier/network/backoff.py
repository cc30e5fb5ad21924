"""How long to wait before the next request of a call: longer each time, at random, and as the endpoint asks. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 20.0
LONGEST_HOLD_S = 60.0  # a mistaken Retry-After of a year must not silence the endpoint for one


def pause_s(retry: int, jitter: float) -> float:
    """Seconds to wait before another request.

    retry: 0 before the second request. jitter: random, in [0, 1), so that calls which failed together do not return together.
    """
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(retry, 30)) * (0.5 + 0.5 * jitter)


def retry_after_s(headers: Mapping[str, str], now_unix_s: float) -> float | None:
    """Seconds that Retry-After asks for; None when it is missing or cannot be read.

    A date in it is compared with the answer's own Date, so that the clocks of the two machines need not agree.
    """
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit() and len(given) < 10:
        return float(given)
    try:
        seconds = float(given)
        return seconds if 0.0 <= seconds < 1e9 else None  # fractions are not in the standard, and are sent all the same
    except ValueError:
        pass  # not a number: the standard's other form is a date
    at = _date(given)
    if at is None:
        return None
    sent = _date(headers.get("date", "")) or datetime.fromtimestamp(now_unix_s, UTC)
    return max(0.0, (at - sent).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
