"""runs/NAME/settled.jsonl: what became of each group, as the learner settles it. Rows are appended and never changed.

Each start of the learner begins with the row of a start, which says which checkpoint it goes back to; what was recorded after
that checkpoint then belongs to an abandoned lineage: no weights hold it any more. A row for each step and for each checkpoint has
what was settled since the row before it. A checkpoint names its row (its mark), and that row is on the disk before the checkpoint
has its name. So the record is never behind a checkpoint, and `read_settled` can say for each group whether it is part of the
weights, in which step and by which start.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from services.run.json_lines import JsonLines, last_row, read_json_lines

What = Literal["trained", "dropped", "dead", "again", "earlier"]
Event = tuple[int, What, str]
"""Sequence number, what became of the group, and why. `again`: it was dead, was sent round again and has arrived."""
LONGEST_WHY = 300


class SettledLog:
    """Written by one start of the learner."""

    def __init__(
        self,
        path: Path,
        attempt: int,
        *,
        version: int,
        mark: str | None,
        watermark: int,
        above: Sequence[int],
        open_below: Sequence[int],
    ) -> None:
        """version, mark: of the checkpoint that this start goes back to. watermark, above, open_below: what its ledger holds as
        settled: every group below the first and those of the second, without those of the third."""
        self._lines = JsonLines(path)
        self._path = path
        self._attempt = attempt
        self._marks = 0
        ledger = {"watermark": watermark, "above": sorted(above), "open_below": sorted(open_below)}
        self._write("start", (), version=version, mark=mark, **ledger)

    def step(self, step: int, events: Iterable[Event], *, issued: int) -> None:
        """A step is taken. step: the policy version that it makes. events: what was settled since the last row. issued: groups
        of the run."""
        self._write("step", events, step=step, issued=issued)

    def checkpoint(self, version: int, events: Iterable[Event], *, issued: int) -> str:
        """A checkpoint is about to be written; returns its mark, once the row is on the disk."""
        self._marks += 1
        mark = f"{self._attempt}.{self._marks}"
        self._write("checkpoint", events, mark=mark, version=version, issued=issued)
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        return mark

    def emptied(self, events: Iterable[Event], *, issued_again: int, held: Iterable[int]) -> None:
        """The stream server has lost groups, and this many were issued again. held: sequence numbers of those that are only in
        this process's memory now."""
        self._write("emptied", events, issued_again=issued_again, held=sorted(held))

    def close(self) -> None:
        self._lines.close()

    def _write(self, row: str, events: Iterable[Event], **fields: Any) -> None:
        settled = [[number, what, why[:LONGEST_WHY]] if why else [number, what] for number, what, why in events]
        self._lines.write(row=row, attempt=self._attempt, **fields, settled=settled)


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one group was settled."""

    what: What
    why: str
    step: int | None
    """The step whose row has it; None: it was settled between the last step and a checkpoint, or before the record."""
    attempt: int
    """The start of the learner that recorded it."""


@dataclass
class Settled:
    """The record of a run, as far as its lineage goes now."""

    groups: dict[int, Settlement] = field(default_factory=dict)
    """By sequence number, without those that were dead and came back."""
    twice: list[int] = field(default_factory=list)
    """Sequence numbers that this lineage has settled more than once."""
    unrecorded: list[int] = field(default_factory=list)
    """Sequence numbers that the ledger of a checkpoint holds as settled, and the record does not."""
    starts: int = 0
    """Starts of the learner."""
    abandoned: dict[int, int] = field(default_factory=dict)
    """Start -> groups settled that it, or those before it, had to take back, because no checkpoint held them."""
    taken_back: set[int] = field(default_factory=set)
    """Sequence numbers in some abandoned lineage."""
    steps: dict[int, tuple[int, list[int]]] = field(default_factory=dict)
    """Step -> the start that took it, and what was settled up to its row since the step or checkpoint before."""
    marks: dict[str, int] = field(default_factory=dict)
    """Mark of a checkpoint of this lineage -> number of rows until it."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows of this lineage."""
    held: set[int] = field(default_factory=set)
    """Sequence numbers that were in the learner's memory when the stream server lost groups; another start issues them again."""
    issued: int = 0
    """The largest number of groups issued that it names."""
    last_attempt: int = 0

    def since(self, mark: str | None) -> set[int]:
        """Sequence numbers settled after the checkpoint with this mark; None: all of them."""
        rows = self.rows[self.marks.get(mark or "", 0) :]
        return {event[0] for row in rows for event in row["settled"] if event[0] in self.groups}

    def emptied_since(self, mark: str | None) -> set[int]:
        """Those of `since` that were settled before the stream server lost groups, and may have been lost with it."""
        rows = self.rows[self.marks.get(mark or "", 0) :]
        last = max((at for at, row in enumerate(rows) if row["row"] == "emptied"), default=0)
        return {event[0] for row in rows[: last + 1] for event in row["settled"]} | self.held


def last_attempt(path: Path) -> int:
    """The number of the last start of the learner in the record, which no earlier one exceeds; 0: there is none."""
    row = last_row(path)
    return 0 if row is None else int(row["attempt"])


def read_settled(path: Path) -> Settled:
    """Read the record. Where there is no file, nothing is settled."""
    live: list[dict[str, Any]] = []
    found = Settled()
    for row in read_json_lines(path):
        if not {"row", "attempt", "settled"} <= row.keys():
            continue
        found.issued = max(found.issued, row.get("issued", 0))
        found.last_attempt = max(found.last_attempt, row["attempt"])
        if row["row"] == "start":
            found.starts += 1
            kept = _until(live, row["mark"])
            gone = {event[0] for one in live[kept:] for event in one["settled"]}
            if gone:
                found.abandoned[row["attempt"]] = len(gone)
                found.taken_back |= gone
            del live[kept:]
        live.append(row)
    found.rows = live
    before: list[int] = []
    for at, row in enumerate(live, start=1):
        settled = [event[0] for event in row["settled"] if event[1] != "again"]
        if row["row"] == "step":
            found.steps[row["step"]] = (row["attempt"], [*before, *settled])
        # The server may be emptied in the midst of a step: what that had consumed by then is in the row before its own.
        before = [*before, *settled] if row["row"] == "emptied" else []
        _take(found, row, at)
    return found


def _until(live: Sequence[dict[str, Any]], mark: str | None) -> int:
    """How many rows belong to the checkpoint with this mark; 0: a new run, or a checkpoint that has none."""
    places = (at for at, row in enumerate(live, start=1) if mark is not None and row.get("mark") == mark)
    return next((at for at in places if live[at - 1]["row"] == "checkpoint"), 0)


def _take(found: Settled, row: dict[str, Any], at: int) -> None:
    if row["row"] == "start":
        found.held = set()
        _compare(found, row)
    elif row["row"] == "emptied":
        found.held |= set(row["held"])
    elif row["row"] == "checkpoint":
        found.marks[row["mark"]] = at
    for number, what, *why in row["settled"]:
        if what == "again":
            found.groups.pop(number, None)
            continue
        if number in found.groups:
            found.twice.append(number)
        found.groups[number] = Settlement(what, why[0] if why else "", row.get("step"), row["attempt"])


def _compare(found: Settled, start: dict[str, Any]) -> None:
    """What the ledger has that this start begins with and the record has not. Before any record that is all of it."""
    missing = {*range(start["watermark"]), *start["above"]} - {*start["open_below"]} - found.groups.keys()
    if found.groups:
        found.unrecorded += sorted(missing - set(found.unrecorded))
        return
    for number in missing:
        found.groups[number] = Settlement("earlier", "settled before this record began", None, start["attempt"])
