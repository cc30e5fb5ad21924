"""Which groups of the run are settled, and how: trained on, dropped for a reason, or dead.

Every group below the watermark is settled; above it the settled ones are listed. The ledger is part of the checkpoint, so
after a crash it tells for each group on the stream whether the weights already contain it.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from services.run.settled import Event, SettledLog, What


class Ledger:
    """Settles each sequence number once; settling it again raises ValueError."""

    def __init__(self) -> None:
        self._watermark = 0
        self._above: set[int] = set()
        self._trained = 0
        self._dropped: Counter[str] = Counter()
        self._dead = 0
        self._buried: set[int] = set()
        self._exhumed: set[int] = set()  # dead once, sent round again, and not settled since
        self._events: list[Event] = []
        self._mark: str | None = None  # of the checkpoint that it was read from (services/run/settled.py)

    def is_settled(self, sequence_number: int) -> bool:
        """Whether the group was trained on, dropped or dead."""
        return sequence_number not in self._exhumed and (
            sequence_number < self._watermark or sequence_number in self._above
        )

    def train(self, sequence_number: int) -> None:
        """The group is part of the weights."""
        self._settle(sequence_number, "trained")
        self._trained += 1

    def drop(self, sequence_number: int, reason: str) -> None:
        """The group does not reach a loss, for this reason."""
        self._settle(sequence_number, "dropped", reason)
        self._dropped[reason] += 1

    def bury(self, sequence_number: int, cause: str = "") -> None:
        """The group is in `dead`, for this cause."""
        self._settle(sequence_number, "dead", cause)
        self._dead += 1
        self._buried.add(sequence_number)

    def exhume(self, sequence_number: int) -> bool:
        """Take back that the group is dead, because it was sent round again and has arrived; False if it was not dead.

        No step has trained on it, so it may be settled once more.
        """
        if sequence_number not in self._buried:
            return False
        self._buried.remove(sequence_number)
        self._exhumed.add(sequence_number)
        self._events.append((sequence_number, "again", ""))
        self._dead -= 1
        return True

    def outstanding(self, issued: int) -> int:
        """How many of the groups issued so far are not settled."""
        return issued - self._watermark - len(self._above) + len(self._exhumed)

    def unsettled(self, issued: int) -> list[int]:
        """Sequence numbers of the groups that are issued and not settled, in order."""
        never = (number for number in range(self._watermark, issued) if number not in self._above)
        return sorted({*never, *self._exhumed})

    def counts(self, issued: int) -> dict[str, Any]:
        """The `groups` entry of summary.json: issued = trained + dropped + dead + outstanding."""
        return {
            "issued": issued,
            "trained": self._trained,
            "dropped": dict(sorted(self._dropped.items())),
            "dead": self._dead,
            "outstanding": self.outstanding(issued),
        }

    def take_events(self) -> list[Event]:
        """What was settled since the last call, in order."""
        events = self._events
        self._events = []
        return events

    def begin_record(self, path: Path, attempt: int, version: int) -> SettledLog:
        """The record in which this start of the learner goes on. version: the policy version that it begins with."""
        return SettledLog(
            path,
            attempt,
            version=version,
            mark=self._mark,
            watermark=self._watermark,
            above=sorted(self._above),
            open_below=sorted(self._exhumed),
        )

    def _settle(self, sequence_number: int, what: What, why: str = "") -> None:
        if self.is_settled(sequence_number):
            raise ValueError(f"group {sequence_number} was settled before")
        self._events.append((sequence_number, what, why))
        if sequence_number in self._exhumed:
            self._exhumed.remove(sequence_number)
            return
        self._above.add(sequence_number)
        while self._watermark in self._above:
            self._above.remove(self._watermark)
            self._watermark += 1

    def to_dict(self) -> dict[str, Any]:
        """JSON values for the checkpoint."""
        return {
            "watermark": self._watermark,
            "settled_above": sorted(self._above),
            "trained": self._trained,
            "dropped": dict(self._dropped),
            "dead": self._dead,
            "buried": sorted(self._buried),
            "exhumed": sorted(self._exhumed),
        }

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Ledger":
        """Continue from a checkpoint."""
        ledger = cls()
        ledger._watermark = saved["watermark"]
        ledger._above = set(saved["settled_above"])
        ledger._trained = saved["trained"]
        ledger._dropped = Counter(saved["dropped"])
        ledger._dead = saved["dead"]
        ledger._buried = set(
            saved.get("buried", ())
        )  # checkpoints from before groups could be sent round again have neither
        ledger._exhumed = set(saved.get("exhumed", ()))
        ledger._mark = saved.get("mark")
        return ledger
