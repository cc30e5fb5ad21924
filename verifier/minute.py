"""What a verifier logs of each minute."""

from typing import Any

from services.minutes import Growth, counted, total
from verifier import metrics


class Minute:
    """Looks at the verifier's own counters."""

    def __init__(self) -> None:
        self._growth = Growth(scores=metrics.SCORES, groups=metrics.GROUPS, retries=metrics.RETRIED_CALLS)

    def say(self, seconds: float) -> tuple[str, dict[str, Any]]:
        """The line and its figures. seconds: since the last one."""
        grown = self._growth.look()
        scores, groups, retries = grown["scores"], grown["groups"], grown["retries"]
        figures = {
            "scores": dict(scores),
            "scores_per_s": scores.total() / seconds,
            "groups": dict(groups),
            "retried_calls": dict(retries),
            "queued_items": total(metrics.QUEUED_ITEMS),
        }
        facts = [f"{scores.total():,.0f} responses, {figures['scores_per_s']:,.1f}/s: {counted(scores)}"]
        if groups:
            facts.append(f"groups: {counted(groups)}")
        facts.append(f"{figures['queued_items']:,.0f} queued")
        if retries:
            facts.append(f"calls repeated: {counted(retries)}")
        return "  ".join(facts), figures


def is_quiet(figures: dict[str, Any]) -> bool:
    """Whether nothing was judged, and nothing waits to be."""
    return not figures["scores"] and not figures["retried_calls"] and not figures["queued_items"]
