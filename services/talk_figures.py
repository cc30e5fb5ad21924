"""What the conversations of a run's replicas come to, from the metrics of all of them: for the live page and the display."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.numbers import count

OPEN = "ratchet_rollout_open_conversations"
TURNS = "ratchet_rollout_turns"
CONVERSATION_SECONDS = "ratchet_rollout_conversation_seconds"
ENVIRONMENT_SECONDS = "ratchet_rollout_environment_seconds"
TOOL_SECONDS = "ratchet_rollout_tool_seconds"
TOOL_ERRORS = "ratchet_rollout_tool_errors_total"
FAULTS = "ratchet_rollout_environment_faults_total"
REWRITTEN = "ratchet_rollout_rewritten_histories_total"
SAMPLES = (
    OPEN,
    TOOL_ERRORS,
    FAULTS,
    REWRITTEN,
    *(f"{name}_{kind}" for name in (TURNS, CONVERSATION_SECONDS, TOOL_SECONDS) for kind in ("sum", "count")),
    f"{ENVIRONMENT_SECONDS}_sum",
)
"""The samples that are read."""
By = Callable[[str, str], Mapping[str, float]]
"""(name of a sample, label) -> value of the label -> what one replica says; one entry under "" where it has no such label."""


@dataclass(frozen=True, slots=True)
class ToolFigures:
    """One tool, since the replicas started."""

    name: str
    """`unreadable`: calls that nobody can read; `unknown`: of tools that there are not."""
    calls: int
    """Calls whose time is known; 0 for environments that do not tell it."""
    mean_seconds: float | None
    errors: int


@dataclass(frozen=True, slots=True)
class TalkFigures:
    """The conversations of all replicas, since these started."""

    open: int
    held: int
    """Those that came to their end."""
    mean_turns: float
    waiting_share: float
    """Share of their time that conversations have waited for their environment, 0..1."""
    rewritten: int
    """Turns with which a sequence began again."""
    tools: tuple[ToolFigures, ...]
    faults: Mapping[str, int]
    """Failures of the environment, by kind; only kinds that there were."""

    def said(self) -> str:
        """In words, on a line."""
        words = [f"{self.mean_turns:.1f} turns, {self.waiting_share:.0%} of the time in the environment"]
        if errors := {tool.name: tool.errors for tool in self.tools if tool.errors}:
            words.append("tool errors: " + ", ".join(f"{name} {count(many)}" for name, many in errors.items()))
        if self.faults:
            words.append("faults: " + ", ".join(f"{kind} {count(many)}" for kind, many in self.faults.items()))
        return "; ".join(words)


def talk_figures(replicas: Sequence[By]) -> TalkFigures | None:
    """None where no conversation has come to its end: the run has no environment, or has just begun."""

    def by(name: str, label: str = "") -> dict[str, float]:
        found: dict[str, float] = {}
        for one in replicas:
            for key, value in one(name, label).items():
                found[key] = found.get(key, 0.0) + value
        return found

    def total(name: str) -> float:
        return sum(by(name).values())

    held = total(f"{TURNS}_count")
    if not held:
        return None
    seconds, calls = by(f"{TOOL_SECONDS}_sum", "tool"), by(f"{TOOL_SECONDS}_count", "tool")
    errors = by(TOOL_ERRORS, "tool")
    tools = tuple(
        ToolFigures(
            name,
            round(calls.get(name, 0)),
            seconds[name] / calls[name] if calls.get(name) else None,
            round(errors.get(name, 0)),
        )
        for name in sorted(calls.keys() | errors.keys())
    )
    talked_s = total(f"{CONVERSATION_SECONDS}_sum")
    return TalkFigures(
        open=round(total(OPEN)),
        held=round(held),
        mean_turns=total(f"{TURNS}_sum") / held,
        # Those that are still open have waited too, and their own time is not counted yet.
        waiting_share=min(1.0, total(f"{ENVIRONMENT_SECONDS}_sum") / talked_s) if talked_s else 0.0,
        rewritten=round(total(REWRITTEN)),
        tools=tools,
        faults={kind: round(count) for kind, count in by(FAULTS, "fault").items() if count},
    )
