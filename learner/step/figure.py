"""What happens to one figure of a step: how it merges over several optimizer steps, and which metric it sets."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

Merge = Callable[[Sequence[Any], str], Any]
"""From the StepReports of several optimizer steps on one batch, in order, and a field's name to the field of the whole."""


def mean(reports: Sequence[Any], name: str) -> float | None:
    """Mean over the optimizer steps that were applied and know it; over all of them where none was applied."""
    applied = [r for r in reports if r.skipped is None]
    known = [x for x in (getattr(r, name) for r in applied or reports) if x is not None]
    return math.fsum(known) / len(known) if known else None


def mean_or_zero(reports: Sequence[Any], name: str) -> float | None:
    """Like `mean`, but an optimizer step whose ESS is not finite counts as 0 next to others that were applied."""
    if all(r.skipped is not None for r in reports):
        return mean(reports, name)
    looked_at = [r for r in reports if r.skipped in (None, "non_finite_ess")]
    return math.fsum(0.0 if r.skipped else getattr(r, name) for r in looked_at) / len(looked_at)


def total(reports: Sequence[Any], name: str) -> Any:
    return sum(getattr(r, name) for r in reports)


def largest(reports: Sequence[Any], name: str) -> Any:
    return max(getattr(r, name) for r in reports)


def of_the_batch(reports: Sequence[Any], name: str) -> Any:
    """For what is the same in every optimizer step on the batch."""
    return getattr(reports[0], name)


def first_unless_applied(reports: Sequence[Any], name: str) -> Any:
    """None where one of the optimizer steps was applied."""
    return None if any(r.skipped is None for r in reports) else getattr(reports[0], name)


@dataclass(frozen=True, slots=True)
class Figure:
    """Marks a field of StepReport."""

    metric: Counter | Gauge | Histogram | None = None
    """A gauge is set to the value (nan for None), a counter is raised by it, a histogram observes it. A field that is a dict
    or a string has a counter with one more label: the dict's key, or the string itself."""
    labels: tuple[str, ...] = ()
    """Label values of `metric`."""
    merge: Merge = mean

    def export(self, value: Any) -> None:
        """Set the metric, if there is one."""
        if isinstance(value, dict):
            for label, amount in value.items():
                self._set(amount, (*self.labels, label))
        elif isinstance(value, str):
            self._set(1, (*self.labels, value))
        else:
            self._set(value, self.labels)

    def _set(self, value: float | None, labels: tuple[str, ...]) -> None:
        if self.metric is None:
            return
        metric = self.metric.labels(*labels) if labels else self.metric
        if isinstance(metric, Gauge):
            metric.set(math.nan if value is None else value)
        elif value is None or math.isnan(value):
            return
        elif isinstance(metric, Counter):
            metric.inc(value)
        else:
            metric.observe(value)


def gauge(name: str, meaning: str, *, merge: Merge = mean) -> Figure:
    """A figure with a gauge of its own, which says what the last step was: nan before the first, which is not a bad value."""
    metric = Gauge(name, meaning)
    metric.set(math.nan)
    return Figure(metric, merge=merge)


def counter(name: str, meaning: str, *, merge: Merge) -> Figure:
    """A figure with a counter of its own, which adds up over steps."""
    return Figure(Counter(name, meaning), merge=merge)
