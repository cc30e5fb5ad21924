"""`audit`: where every group of a run is, and which are lost, doubled or skipped.

Every sequence number that was issued is one of: trained on in a step, dropped for a reason, dead with a cause, or outstanding on
one of the streams. What became of a group is in settled.jsonl, whatever a crash took back being left out; what is outstanding is
on the streams of the run's Redis server, if it can be asked. A checkpoint's ledger and steps.jsonl are compared with the record.

The order of the looks matters on a run that is alive: the record, the streams in the order that groups go through, the newest
checkpoint, the record once more. A group that moves meanwhile is then seen once at least.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from services.clock import sleep
from services.config.load import load
from services.errors import InputError, StreamError
from services.numbers import count
from services.run.checkpoint_files import STATE, read_object
from services.run.checkpoint_names import latest_checkpoint
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.settled import Settled, Settlement, read_settled
from services.streams.fence import found_identity, identity_of
from services.streams.names import DEAD, PROMPTS, SCORED, TRAINING, TRAJECTORIES
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisIssueLog, RedisStream
from services.wire.prompt import trace

Kind = Literal["lost", "doubled", "skipped", "early", "foreign"]
KINDS: Mapping[Kind, str] = {
    "lost": "issued, not settled, and on no stream: no step will train on them",
    "doubled": "settled more than once by one lineage",
    "skipped": "settled according to a checkpoint or to steps.jsonl, and not according to settled.jsonl",
    "early": "acknowledged before a checkpoint held them: a crash now would lose them",
    "foreign": "on the streams and never issued: another run's data",
}
STAGES = {PROMPTS: "issued", TRAJECTORIES: "sampled", SCORED: "scored", DEAD: "found dead"}
"""Stream -> the stage of a group on it."""
LOOKS = 4
PAUSE_S = 0.5
"""A group that is in nobody's place is looked for again, so that none that has just moved is taken for lost."""
STARVED_WINDOWS = 4
"""A group is starved when this many times as many groups as may be out at once were issued and settled after it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an outstanding group is."""

    stream: str
    owner: str | None
    deliveries: int

    def said(self) -> str:
        stage = STAGES[self.stream]
        return stage if self.owner is None else f"{stage}, claimed by {self.owner}"


@dataclass
class Audit:
    """What an audit has found."""

    run: str
    issued: int
    settled: Mapping[int, Settlement]
    """By sequence number."""
    outstanding: Mapping[int, Place | None]
    """Issued and not settled; None: nobody knows where, because the streams could not be asked."""
    problems: dict[Kind, list[int]]
    """Sequence numbers, in order; without kinds of which there is none."""
    starved: list[int]
    """Outstanding groups that wait far longer than the others."""
    left_out_rows: Mapping[str, list[int]]
    """Section of the settings -> rows of its dataset that no prompt is made of."""
    starts: int
    taken_back: int
    """Groups settled once more because a start went back behind them."""
    unseen: list[str] = field(default_factory=list)
    """What could not be looked at, a sentence for each."""

    @property
    def is_clean(self) -> bool:
        """Whether no group is lost, doubled or skipped, as far as could be seen."""
        return not self.problems

    def counts(self) -> dict[str, Any]:
        """Groups by what became of them."""
        what = Counter(one.what for one in self.settled.values())
        dropped = Counter(one.why for one in self.settled.values() if one.what == "dropped")
        places = Counter("not known" if place is None else place.said() for place in self.outstanding.values())
        return {
            "issued": self.issued,
            "trained": what["trained"],
            "dropped": dict(sorted(dropped.items())),
            "dead": what["dead"],
            "earlier": what["earlier"],
            "outstanding": dict(sorted(places.items())),
        }

    def fate(self, number: int) -> str:
        """What became of one group, in words."""
        one = self.settled.get(number)
        if one is None:
            place = self.outstanding.get(number)
            return f"outstanding: {'not known where' if place is None else place.said()}"
        where = "" if one.step is None else f" in step {one.step}"
        why = f": {one.why}" if one.why else ""
        return f"{one.what}{where} of lineage {one.attempt}{why}"


@dataclass
class _Streams:
    """What is on the streams."""

    issued: int = 0
    """Groups issued when the look began."""
    issued_since: int = 0
    """Groups issued when it had ended: some of them may be in `places` already."""
    places: dict[int, Place] = field(default_factory=dict)
    unreadable: Counter[str] = field(default_factory=Counter)


def audit(run_folder: Path, connection: RedisConnection | None) -> Audit:
    """Account for every group of the run in this folder. connection: to its Redis server; None: only files are looked at.

    It changes nothing. Raises InputError if there is no run in the folder or a file of a checkpoint is damaged.
    """
    folder = RunFolder(run_folder)
    if not folder.settings.exists():
        raise InputError(f"{run_folder} is not a run folder: it has no {folder.settings.name}. Give one like runs/NAME")
    config = load(folder.settings)
    found = _look(config.name, folder, connection)
    for _ in range(LOOKS - 1):
        if connection is None or not {"lost", "early"} & found.problems.keys():
            break
        sleep(PAUSE_S)
        again = _look(config.name, folder, connection)
        for kind in ("lost", "early"):
            again.problems[kind] = sorted(set(found.problems.get(kind, ())) & set(again.problems.get(kind, ())))
        again.problems = {kind: numbers for kind, numbers in again.problems.items() if numbers}
        found = again
    window = (config.learner.max_lag + 1) * config.learner.groups_per_step
    found.starved = _starved(found, STARVED_WINDOWS * window)
    return found


def _look(run: str, folder: RunFolder, connection: RedisConnection | None) -> Audit:
    unseen: list[str] = []
    before = read_settled(folder.settled)
    streams = None
    if connection is None:
        unseen.append(
            "the streams: the run's Redis server is not running or not named, so nobody knows where groups are"
        )
    else:
        try:
            _check_identity(connection, run, folder)
            streams = _read_streams(connection, run)
        except StreamError as fault:
            unseen.append(f"the streams: {fault}")
    saved = _newest_ledger(folder, unseen)
    record = read_settled(folder.settled)
    issued = max(record.issued, saved.get("issued", 0), streams.issued if streams else 0)
    settled = record.groups
    outstanding = {number: None for number in range(issued) if number not in settled}
    problems: dict[Kind, Iterable[int]] = {
        "doubled": [*record.twice, *_stepped_twice(folder, record)],
        "skipped": [*record.unrecorded, *_unrecorded(saved, record), *_disagreeing(folder, record)],
    }
    places: dict[int, Place | None] = dict(outstanding)
    if streams is not None:
        memory = {number: Place(SCORED, "the learner's memory", 1) for number in record.held}
        places = {number: streams.places.get(number) or memory.get(number) for number in outstanding}
        known = min(
            issued, max(streams.issued, before.issued)
        )  # what was issued during the look may not have been seen
        problems["lost"] = [number for number, place in places.items() if place is None and number < known]
        ledger = saved.get("ledger", {})
        owed = before.since(ledger.get("mark")) & settled.keys()
        excused = record.emptied_since(ledger.get("mark")) | _settled_in(ledger)
        problems["early"] = owed - excused - streams.places.keys()
        most = max(issued, streams.issued_since)
        problems["foreign"] = [number for number in streams.places if number >= most]
        for name, many in streams.unreadable.items():
            unseen.append(f"{count(many)} entries of the stream {name}: they cannot be read, so they may be any group")
    if not record.rows:
        unseen.append(
            f"what became of the groups: there is no {folder.settled.name}; an earlier version wrote this run"
        )
    elif earlier := sum(one.what == "earlier" for one in settled.values()):
        unseen.append(f"{count(earlier)} groups that were settled before {folder.settled.name} began")
    return Audit(
        run=run,
        issued=issued,
        settled=settled,
        outstanding=places,
        problems={kind: sorted(set(numbers)) for kind in KINDS if (numbers := problems.get(kind))},
        starved=[],
        left_out_rows=_left_out(folder),
        starts=record.starts,
        taken_back=len(record.taken_back),
        unseen=unseen,
    )


def _check_identity(connection: RedisConnection, run: str, folder: RunFolder) -> None:
    """Raises InputError if the server holds another run's data under this name."""
    there = found_identity(connection, run)
    if there is None or not folder.identity.exists():
        return
    here = identity_of(folder.identity, folder.path)
    if there.run_id != here.run_id:
        raise InputError(
            f"Redis at {connection.address} holds the data of another run named {run}: {there.said()}; this is {here.said()}"
        )


def _read_streams(connection: RedisConnection, run: str) -> _Streams:
    """Read in the order that groups go through, so that one which moves meanwhile is seen."""
    found = _Streams()
    streams = [RedisStream(connection, run, name, "audit", 1e8) for name in TRAINING]
    issue_log = RedisIssueLog(connection, streams[0])
    found.issued = issue_log.issued_count()
    for stream in streams:
        for entry in stream.entries():
            prompt = trace(entry.payload)
            if prompt is None:
                found.unreadable[stream.name] += 1
            elif prompt.purpose == "train":
                found.places[prompt.sequence_number] = Place(stream.name, entry.owner, entry.deliveries)
    found.issued_since = issue_log.issued_count()
    return found


def _newest_ledger(folder: RunFolder, unseen: list[str]) -> dict[str, Any]:
    """The state of the newest checkpoint: `issued` and `ledger`; empty when there is none."""
    for _ in range(3):  # the checkpoint may be replaced while it is read
        checkpoint = latest_checkpoint(folder.checkpoints)
        if checkpoint is None:
            unseen.append("a checkpoint: there is none yet")
            return {}
        try:
            return read_object(checkpoint, STATE)
        except InputError:
            if checkpoint == latest_checkpoint(folder.checkpoints):
                raise
    unseen.append("a checkpoint: they come and go faster than they are read")
    return {}


def _settled_in(ledger: Mapping[str, Any]) -> set[int]:
    settled = {*range(ledger.get("watermark", 0)), *ledger.get("settled_above", ())}
    return settled - set(ledger.get("exhumed", ()))


def _unrecorded(saved: Mapping[str, Any], record: Settled) -> set[int]:
    """What the newest checkpoint holds as settled and the record does not."""
    return _settled_in(saved.get("ledger", {})) - record.groups.keys() if record.rows else set()


def _consumed(folder: RunFolder, record: Settled) -> dict[int, list[int]]:
    """Step -> what steps.jsonl says that it consumed, of the steps in this lineage."""
    rows = read_json_lines(folder.steps)
    return {
        row["step"]: row["consumed_groups"]
        for row in rows
        if row["step"] in record.steps and record.steps[row["step"]][0] == row["attempt"]
    }


def _disagreeing(folder: RunFolder, record: Settled) -> set[int]:
    """What a step consumed according to steps.jsonl, and the record does not have in that step."""
    found: set[int] = set()
    for step, numbers in _consumed(folder, record).items():
        found |= set(numbers) - set(record.steps[step][1])
    return found


def _stepped_twice(folder: RunFolder, record: Settled) -> list[int]:
    consumed = Counter(number for numbers in _consumed(folder, record).values() for number in numbers)
    came_back = {event[0] for row in record.rows for event in row["settled"] if event[1] == "again"}
    return [number for number, times in consumed.items() if times > 1 and number not in came_back]


def _starved(found: Audit, window: int) -> list[int]:
    """Outstanding groups after which more than `window` groups were settled."""
    settled = sorted(found.settled)
    later, starved = len(settled), []
    at = 0
    for number in sorted(found.outstanding):
        while at < len(settled) and settled[at] < number:
            at += 1
        if later - at > window:
            starved.append(number)
    return starved


def _left_out(folder: RunFolder) -> dict[str, list[int]]:
    if not folder.left_out.exists():
        return {}
    noted = read_object(folder.path, folder.left_out.name)
    return {section: sorted(one["rows"]) for section, one in noted.items()}
