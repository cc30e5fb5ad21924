from verifier import metrics
from verifier.minute import Minute, is_quiet


def test_a_minute_of_a_verifier_in_words_and_figures() -> None:
    minute = Minute()
    metrics.SCORES.labels("correct", "exact").inc(90)
    metrics.SCORES.labels("error", "exact").inc(30)
    metrics.GROUPS.labels("scored").inc(15)
    metrics.QUEUED_ITEMS.set(3)
    metrics.RETRIED_CALLS.labels("scoring").inc(2)
    words, figures = minute.say(60.0)
    metrics.QUEUED_ITEMS.set(0)
    assert words == (
        "120 responses, 2.0/s: 90 correct, 30 error  groups: 15 scored  3 queued  calls repeated: 2 scoring"
    )
    assert figures["scores"] == {"correct": 90, "error": 30}
    assert is_quiet(minute.say(60.0)[1])
