"""What a convention reads out of one row."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    """A problem as its row gives it, before the settings fill in grader and options."""

    prompt: str | list[dict[str, str]]
    """Text, or chat messages with `role` and `content`."""
    reference: Any
    """What the grader compares responses with: a JSON value, never null."""
    grader: str | None = None
    """The grader that the row itself names; None when it names none."""
    options: dict[str, Any] = field(default_factory=dict)
    """The row's own options, which take precedence over those of the settings."""
