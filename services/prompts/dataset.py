"""Problems with checkable answers, and the order in which a run goes through them."""

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from services.config.prompts import ColumnMap, PromptsConfig
from services.errors import InputError
from services.graders import GRADERS, known_graders
from services.prompts.sources import Row, rows

GSM8K_ANSWER = re.compile(r"####\s*(\S.*?)\s*$")
LARGEST_WIRE_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of a dataset."""

    row: int
    """From 0, in the order of the dataset."""
    prompt: str | list[dict[str, str]]
    """Text, or chat messages with `role` and `content`."""
    reference: Any
    """What the grader compares with: a JSON value, never null."""
    grader: str
    options: dict[str, Any] = field(default_factory=dict)


def load_problems(settings: PromptsConfig, *, limit: int | None = None) -> list[Problem]:
    """The problems of a dataset, or its first `limit`. Raises InputError naming file, row, column and what to do."""
    if settings.grader not in GRADERS:
        raise InputError(f"prompts.grader = {settings.grader!r}: there is no such grader, only {known_graders()}")
    read = _convention(settings)
    found = itertools.islice(rows(settings.source), limit)
    problems = [read(index, row) for index, row in enumerate(found)]
    if not problems:
        origin = getattr(settings.source, "path", None) or getattr(settings.source, "name", None)
        raise InputError(f"the dataset {origin} is empty; it needs at least one row")
    return problems


class PromptCursor:
    """Which row a sequence number stands for. A pure function of seed and number: saving the number saves the cursor."""

    def __init__(self, seed: int, rows: int, *, shuffle: bool) -> None:
        if rows < 1:
            raise ValueError(f"a cursor over {rows} rows")
        self._seed, self._rows, self._shuffle = seed, rows, shuffle
        self._epoch, self._order = 0, self._order_of(0)

    def at(self, sequence_number: int) -> tuple[int, int]:
        """(epoch, row). Each epoch has every row once, in an order of its own."""
        epoch, place = divmod(sequence_number, self._rows)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._order_of(epoch)
        return epoch, int(self._order[place])

    def _order_of(self, epoch: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        if not self._shuffle:
            return np.arange(self._rows)
        return np.random.default_rng([self._seed, epoch]).permutation(self._rows)


def _convention(settings: PromptsConfig) -> Callable[[int, Row], Problem]:
    """How a row becomes a problem. A new convention is one function and one line here."""

    def plain(index: int, row: Row) -> Problem:
        columns = ColumnMap(prompt="prompt", reference="reference")
        if "grader" in row.fields:
            columns = columns.model_copy(update={"grader": "grader"})
        if "options" in row.fields:
            columns = columns.model_copy(update={"options": "options"})
        return mapped(columns, index, row)

    def mapped(columns: ColumnMap, index: int, row: Row) -> Problem:
        grader = (
            settings.grader if columns.grader is None else _column(row, columns.grader, str, "the name of a grader")
        )
        own = {} if columns.options is None else (_column(row, columns.options, dict, "an object", empty={}) or {})
        # Parquet gives every row the union of all option names, with null where a row has none.
        options = settings.options | {name: value for name, value in own.items() if value is not None}
        prompt, reference = _prompt(row, columns.prompt), _reference(row, columns.reference)
        return Problem(index, prompt, reference, _known(row, grader), options)

    def gsm8k(index: int, row: Row) -> Problem:
        solution = _column(row, "answer", str, "a solution whose last line is `#### 42`")
        answer = GSM8K_ANSWER.search(solution)
        if answer is None:
            raise InputError(f"{row.place}: column answer does not end in a line `#### 42`, but in {solution[-40:]!r}")
        grader = _known(row, settings.grader)
        return Problem(index, _prompt(row, "question"), answer[1].replace(",", ""), grader, settings.options)

    def dapo(index: int, row: Row) -> Problem:
        reward_model = _column(row, "reward_model", dict, "an object with ground_truth")
        reference = _reference(Row(f"{row.place}, column reward_model", reward_model), "ground_truth")
        return Problem(index, _prompt(row, "prompt"), reference, _known(row, settings.grader), settings.options)

    if isinstance(settings.columns, ColumnMap):
        given = settings.columns
        return lambda index, row: mapped(given, index, row)
    return {"plain": plain, "gsm8k": gsm8k, "dapo-math-17k": dapo}[settings.columns]


def _column(row: Row, name: str, expected: type, description: str, *, empty: Any = None) -> Any:
    """empty: what null stands for; without it null is an error."""
    if name not in row.fields:
        raise InputError(
            f"{row.place} has no column {name}; it has {', '.join(row.fields) or 'none'}. "
            "Name the right ones in prompts.columns"
        )
    value = row.fields[name]
    if value is None and empty is not None:
        return empty
    if not isinstance(value, expected):
        raise InputError(f"{row.place}: column {name} must be {description}, not {_shown(value)}")
    return value


def _prompt(row: Row, name: str) -> str | list[dict[str, str]]:
    value = _column(row, name, object, "")
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value and all(_is_message(message) for message in value):
        return [{"role": message["role"], "content": message["content"]} for message in value]
    raise InputError(
        f"{row.place}: column {name} must be text or a list of messages with role and content, not {_shown(value)}"
    )


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _reference(row: Row, name: str) -> Any:
    """A value that survives msgpack and JSON unchanged: integers beyond 64 bits and decimals become text."""
    value = _column(row, name, object, "")
    if isinstance(value, Decimal) or (isinstance(value, int) and abs(value) > LARGEST_WIRE_INTEGER):
        return str(value)
    if value is None or not _is_json(value):
        raise InputError(f"{row.place}: column {name} must be a JSON value other than null, not {_shown(value)}")
    return value


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) <= LARGEST_WIRE_INTEGER
    return value is None or isinstance(value, str)


def _known(row: Row, grader: str) -> str:
    if grader not in GRADERS:
        raise InputError(f'{row.place}: there is no grader "{grader}"; the known ones are {known_graders()}')
    return grader


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text[:60]}{'...' if len(text) > 60 else ''}"
