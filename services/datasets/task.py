"""What a convention reads out of one row."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Task:
    prompt: str | list[dict[str, str]]
    """Text, or chat messages with `role` and `content`."""
    reference: Any
    """What the grader compares with: a JSON value, never null."""
    grader: str | None = None
    """Only where the row itself names one."""
    options: dict[str, Any] = field(default_factory=dict)
    """The row's own; they count more than those of the settings."""
