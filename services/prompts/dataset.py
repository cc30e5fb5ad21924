"""Problems from files, and the order in which a run goes through them."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.config.prompts import JsonlSource, PromptsConfig
from services.errors import InputError


@dataclass(frozen=True, slots=True)
class Problem:
    row: int
    prompt: str | list[dict[str, str]]
    reference: Any
    grader: str
    options: dict[str, Any] = field(default_factory=dict)


def load_problems(settings: PromptsConfig, *, limit: int | None = None) -> list[Problem]:
    assert isinstance(settings.source, JsonlSource)
    problems = []
    for row, line in enumerate(settings.source.path.read_text().splitlines()):
        fields = json.loads(line)
        problems.append(
            Problem(
                row,
                fields["prompt"],
                fields["reference"],
                fields.get("grader", settings.grader),
                fields.get("options", {}),
            )
        )
    if not problems:
        raise InputError("empty")
    return problems[:limit]


class PromptCursor:
    def __init__(self, seed: int, rows: int, *, shuffle: bool) -> None:
        self._seed, self._rows, self._shuffle = seed, rows, shuffle
        self._epoch, self._order = -1, np.arange(rows)

    def at(self, sequence_number: int) -> tuple[int, int]:
        epoch, place = divmod(sequence_number, self._rows)
        if epoch != self._epoch and self._shuffle:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._rows)
        self._epoch = epoch
        return epoch, int(self._order[place])
