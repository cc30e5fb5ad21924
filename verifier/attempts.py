"""Asking again for responses that got no verdict, with growing pauses: in a run and in `ratchet verify` alike."""

from collections.abc import Awaitable, Callable, Sequence

from services.wire.verdict import Score
from verifier.contract import ScoreItem
from verifier.scores import without_verdict

SECOND_ATTEMPT_S = 0.5  # four times as long before each further one: an outage of ten seconds costs no group


async def ask_again(
    ask: Callable[[Sequence[ScoreItem]], Awaitable[list[Score]]],
    items: Sequence[ScoreItem],
    scores: list[Score],
    *,
    attempts: int,
    pause: Callable[[float], Awaitable[None]],
) -> None:
    """Replaces the scores that have no verdict with those of further attempts.

    scores: of the first attempt, one for each item; changed in place. attempts: including the first. pause: called with the
    seconds to wait before each further attempt.

    Waits for: the scoring service, through `ask`, and the pauses between attempts.
    Until: every response has a verdict, or `attempts` are used up.
    Ended by: verdicts, or what `ask` or `pause` raise.
    Metric: ratchet_verifier_group_retries_total counts the attempts of the stream worker.
    """
    for attempt in range(1, attempts):
        missing = without_verdict(scores)
        if not missing:
            return
        await pause(pause_s(attempt))
        for index, score in zip(missing, await ask([items[index] for index in missing]), strict=True):
            scores[index] = score


def pause_s(attempt: int) -> float:
    """Seconds to wait after this many attempts: 0.5, 2, 8, ..."""
    return SECOND_ATTEMPT_S * 4.0 ** (attempt - 1)
