"""What a replica logs of each minute."""

from collections.abc import Callable
from typing import Any

from rollout import metrics
from services.minutes import Growth, counted, total
from services.numbers import count, number


class Minute:
    """Looks at the replica's own counters."""

    def __init__(self, busy_s: Callable[[], float]) -> None:
        """busy_s: seconds in which anything was in flight, so far."""
        self._busy_s = busy_s
        self._busy_before_s = 0.0
        self._growth = Growth(groups=metrics.GROUPS, tokens=metrics.SAMPLED_TOKENS)

    def say(self, seconds: float) -> tuple[str, dict[str, Any]]:
        """The line and its figures. seconds: since the last one."""
        grown = self._growth.look()
        busy_s = self._busy_s()
        idle = min(1.0, max(0.0, 1.0 - (busy_s - self._busy_before_s) / seconds))
        self._busy_before_s = busy_s
        figures: dict[str, Any] = {
            "groups": dict(grown["groups"]),
            "tokens": grown["tokens"].total(),
            "tokens_per_s": grown["tokens"].total() / seconds,
            "running_sequences": total(metrics.RUNNING),
            "idle_ratio": idle,
            "policy_version": int(total(metrics.POLICY_VERSION)),
        }
        groups = grown["groups"]
        said = f"{count(groups.pop('handed_over', 0))} groups"
        if groups:
            said += f" ({counted(groups)})"
        words = (
            f"{said}  {count(figures['tokens'])} tokens, {number(figures['tokens_per_s'], 1)}/s  "
            f"{count(figures['running_sequences'])} sequences in flight  idle {idle:.2f}  "
            f"weights version {figures['policy_version']}"
        )
        return words, figures


def is_quiet(figures: dict[str, Any]) -> bool:
    """Whether nothing was sampled and nothing is being sampled."""
    return not figures["groups"] and not figures["running_sequences"]
