from rollout import metrics
from rollout.minute import Minute, is_quiet


def test_a_minute_of_a_replica_in_words_and_figures() -> None:
    busy_s = [0.0]
    minute = Minute(lambda: busy_s[0])
    metrics.GROUPS.labels("handed_over").inc(12)
    metrics.GROUPS.labels("dead").inc(1)
    metrics.SAMPLED_TOKENS.inc(3000)
    metrics.POLICY_VERSION.set(40)
    metrics.RUNNING.set(8)
    busy_s[0] += 45
    words, figures = minute.say(60.0)
    metrics.RUNNING.set(0)
    assert words == "12 groups (1 dead)  3,000 tokens, 50.0/s  8 sequences in flight  idle 0.25  weights version 40"
    assert (figures["tokens_per_s"], figures["idle_ratio"], figures["policy_version"]) == (50.0, 0.25, 40)
    assert not is_quiet(figures)
    assert is_quiet(minute.say(60.0)[1])
