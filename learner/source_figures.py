"""Figures of each of several sources, for one step: in steps.jsonl, for trackers and as metrics."""

from collections.abc import Mapping
from typing import Any

from learner.batch.sift import Tally
from learner.metrics import SOURCE_GROUPS, SOURCE_PASS_RATIO, SOURCE_REWARD, SOURCE_SHARE_RATIO, SOURCE_TOKENS


def source_figures(by_source: Mapping[str, Tally], shares: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The entry `sources` of a row of steps.jsonl; sets the metrics. Empty where there is one source.

    by_source: what was consumed of each for the step. shares: of the prompts, now. The metrics have a series for each source that
    the run file names, at most services.config.prompts.MOST_SOURCES.
    """
    figures: dict[str, dict[str, Any]] = {}
    for name, share in shares.items():
        if not name:
            continue
        counted = by_source.get(name, Tally())
        tokens = round(counted.mean_response_tokens * counted.sequences) if counted.sequences else 0
        figures[name] = {
            "share": share,
            "groups": counted.groups,
            "dropped_groups": dict(counted.dropped_groups),
            "sequences": counted.sequences,
            "tokens": tokens,
            "mean_reward": counted.mean_reward,
            "mean_shaped_reward": counted.mean_shaped_reward,
            "pass_rate": counted.pass_rate,
        }
        SOURCE_SHARE_RATIO.labels(name).set(share)
        SOURCE_TOKENS.labels(name).inc(tokens)
        SOURCE_GROUPS.labels(name, "kept").inc(counted.groups - sum(counted.dropped_groups.values()))
        for reason, count in counted.dropped_groups.items():
            SOURCE_GROUPS.labels(name, reason).inc(count)
        if counted.sequences:  # else the last known ones stay: no group of it was in this step
            SOURCE_REWARD.labels(name).set(counted.mean_reward)
            SOURCE_PASS_RATIO.labels(name).set(counted.pass_rate)
    return figures
