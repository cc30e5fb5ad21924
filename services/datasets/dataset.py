"""Problems with checkable answers, and the order in which a run goes through them."""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.config.prompts import SourceConfig
from services.datasets.conventions import convention
from services.datasets.row_values import why_not_json
from services.datasets.sources import Row, UnreadableRow, rows
from services.errors import InputError
from services.graders import graders, known_graders
from services.numbers import count

log = logging.getLogger("ratchet")


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of a dataset, ready to be rendered and graded."""

    row: int
    """Place in the dataset, from 0."""
    prompt: str | list[dict[str, str]]
    """Text, or chat messages with `role` and `content`."""
    reference: Any
    """What the grader compares responses with: a JSON value, never null."""
    grader: str
    """Name of a known grader."""
    options: dict[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)
    """Where the row is, for error messages: "data/train.jsonl line 7"."""
    source: str = ""
    """Name of the source, where there are several."""


def read_problems(settings: SourceConfig) -> tuple[list[Problem], list[UnreadableRow]]:
    """The problems of a dataset, and why each other row cannot be read. Raises InputError for what is no matter of a row."""
    unreadable: list[UnreadableRow] = []
    return list(_problems(settings, _default_grader(settings), unreadable)), unreadable


def load_problems(settings: SourceConfig, *, limit: int | None = None) -> list[Problem]:
    """The problems of a dataset, or its first `limit`. Raises InputError naming file, row, column and what to do."""
    unreadable: list[UnreadableRow] = []
    read = _problems(settings, _default_grader(settings), unreadable, strict=not settings.skip_unreadable)
    problems = list(itertools.islice(read, limit))
    origin = origin_of(settings)
    if not problems and unreadable:
        raise InputError(
            f"none of the {count(len(unreadable))} rows of {origin} can be read; the first: {unreadable[0]}"
        )
    if not problems:
        raise InputError(f"the dataset {origin} is empty; it needs at least one row")
    if unreadable:
        log.warning(
            "%s: %d rows left out, %d read. The first: %s", origin, len(unreadable), len(problems), unreadable[0]
        )
    return problems


def origin_of(settings: SourceConfig) -> str:
    """The file, folder, name or task that the rows come from."""
    return str(next(found for name in ("path", "name", "task") if (found := getattr(settings.source, name, None))))


def _default_grader(settings: SourceConfig) -> str:
    default = convention(settings.columns).grader if settings.grader is None else settings.grader
    if default not in graders():
        raise InputError(f"prompts.grader = {default!r}: there is no such grader; the known ones are {known_graders()}")
    return default


def _problems(
    settings: SourceConfig, default: str, unreadable: list[UnreadableRow], *, strict: bool = False
) -> Iterator[Problem]:
    """The problems, one by one. unreadable: collects why rows are left out. strict: the first of them is an error instead."""
    if why := why_not_json(settings.options, "prompts.options"):
        raise InputError(why)
    read = convention(settings.columns).read
    for index, row in enumerate(rows(settings.source)):
        try:
            if isinstance(row, UnreadableRow):
                raise row
            task = read(row)
        except UnreadableRow as fault:
            if strict:
                raise InputError(f"{fault}. With skip_unreadable = true such rows are left out") from fault
            unreadable.append(fault)
            continue
        grader = _known(row, task.grader or default)
        options = settings.options | task.options
        yield Problem(index, task.prompt, task.reference, grader, options, row.place, settings.name)


class PromptCursor:
    """Maps sequence numbers to rows. A pure function of seed and number, so that saving the number saves the cursor."""

    def __init__(self, seed: int, rows: int, *, shuffle: bool) -> None:
        if rows < 1:
            raise ValueError(f"a cursor needs at least one row, not {rows}")
        self._seed = seed
        self._rows = rows
        self._shuffle = shuffle
        self._epoch = 0
        self._order = self._order_of(0)

    def at(self, sequence_number: int) -> tuple[int, int]:
        """(epoch, row) of a sequence number. Each epoch has every row once, in an order of its own."""
        epoch, place = divmod(sequence_number, self._rows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = self._order_of(epoch)
        return epoch, int(self._order[place])

    def _order_of(self, epoch: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        if not self._shuffle:
            return np.arange(self._rows)
        return np.random.default_rng([self._seed, epoch]).permutation(self._rows)


def _known(row: Row, grader: str) -> str:
    if grader not in graders():
        raise InputError(f'{row.place}: there is no grader "{grader}"; the known ones are {known_graders()}')
    return grader
