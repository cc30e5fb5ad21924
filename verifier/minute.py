"""What a verifier logs of each minute."""

from typing import Any

from services.minutes import Growth, counted, total
from services.numbers import count, number
from verifier import metrics


class Minute:
    """Looks at the verifier's own counters."""

    def __init__(self) -> None:
        self._growth = Growth(scores=metrics.SCORES, groups=metrics.GROUPS, retries=metrics.RETRIED_CALLS)

    def say(self, seconds: float) -> tuple[str, dict[str, Any]]:
        """The line and its figures. seconds: since the last one."""
        grown = self._growth.look()
        scores, groups, retries = grown["scores"], grown["groups"], grown["retries"]
        figures: dict[str, Any] = {
            "scores": dict(scores),
            "scores_per_s": scores.total() / seconds,
            "groups": dict(groups),
            "retried_calls": dict(retries),
            "queued_items": total(metrics.QUEUED_ITEMS),
        }
        facts = [f"{count(scores.total())} responses, {number(figures['scores_per_s'], 1)}/s: {counted(scores)}"]
        if groups:
            facts.append(f"groups: {counted(groups)}")
        facts.append(f"{count(figures['queued_items'])} queued")
        if retries:
            facts.append(f"calls repeated: {counted(retries)}")
        return "  ".join(facts), figures


def is_quiet(figures: dict[str, Any]) -> bool:
    """Whether nothing was judged, and nothing waits to be."""
    return not figures["scores"] and not figures["retried_calls"] and not figures["queued_items"]
