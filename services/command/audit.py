"""`ratchet audit`: prints what services/run/audit.py finds."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.command.facts import live_url
from services.numbers import count
from services.run.audit import KINDS, Audit, audit
from services.run.history import open_run
from services.streams.redis_connection import RedisConnection

NAMED = 10
ANSWER_S = 10.0


def audited(path: Path) -> Audit:
    """The audit of the run in this folder, with its Redis server if that can be asked. Raises InputError if there is no run.

    Waits for: the run's Redis server.
    Until: 10 s (ANSWER_S) for each command.
    Ended by: its answer, or the deadline, which the audit says.
    Metric: none; a command serves none.
    """
    url = live_url(*open_run(path))
    if url is None:
        return audit(path, None)
    connection = RedisConnection(url, deadline_s=ANSWER_S)
    try:
        return audit(path, connection)
    finally:
        connection.close()


def said(found: Audit, *, each: bool = False) -> str:
    """The audit in lines of text. each: one more for every group."""
    counts = found.counts()
    dropped, outstanding = counts["dropped"], counts["outstanding"]
    starts = f"{count(found.starts)} start{'' if found.starts == 1 else 's'} of the learner"
    if found.taken_back:
        starts += f", which took {count(found.taken_back)} settled groups back"
    lines = [
        f"run {found.run}: {count(found.issued)} groups issued in {starts}",
        f"  trained      {count(counts['trained'])}",
        f"  dropped      {count(sum(dropped.values()))}{_listed(dropped)}",
        f"  dead         {count(counts['dead'])}",
        f"  outstanding  {count(sum(outstanding.values()))}{_listed(outstanding)}",
    ]
    if counts["earlier"]:
        lines.append(f"  earlier      {count(counts['earlier'])}")
    if each:
        lines += [f"  group {number}: {found.fate(number)}" for number in range(found.issued)]
    dead = [number for number, one in found.settled.items() if one.what == "dead"]
    lines += [f"  dead: group {number}: {found.settled[number].why or 'cause not recorded'}" for number in dead[:NAMED]]
    for section, rows in found.left_out_rows.items():
        lines.append(f"  rows of {section} that no prompt is made of: {_named(rows)}")
    if found.starved:
        lines.append(f"  starved, far behind the groups issued with them: {_named(found.starved)}")
    lines += [f"  not looked at: {what}" for what in found.unseen]
    lines += [f"  {kind.upper()}: {_named(numbers)}: {KINDS[kind]}" for kind, numbers in found.problems.items()]
    lines.append("every group is accounted for" if found.is_clean else "NOT every group is accounted for")
    return "\n".join(lines)


def as_json(found: Audit, *, each: bool = False) -> str:
    """The audit as JSON. each: with what became of every group."""
    value: dict[str, Any] = {
        "run": found.run,
        "clean": found.is_clean,
        **found.counts(),
        "starts": found.starts,
        "taken_back": found.taken_back,
        "problems": {kind: {"count": len(ns), "first": ns[:NAMED]} for kind, ns in found.problems.items()},
        "starved": {"count": len(found.starved), "first": found.starved[:NAMED]},
        "left_out_rows": {section: len(rows) for section, rows in found.left_out_rows.items()},
        "not_looked_at": found.unseen,
    }
    if each:
        settled = {number: asdict(one) for number, one in found.settled.items()}
        value["groups"] = settled | {
            number: {"what": "outstanding", **(asdict(place) if place else {})}
            for number, place in found.outstanding.items()
        }
    return json.dumps(value, indent=2)


def _listed(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{count(many)} {what}' for what, many in counts.items())})" if counts else ""


def _named(numbers: Sequence[int]) -> str:
    first = ", ".join(str(number) for number in numbers[:NAMED])
    return f"{count(len(numbers))} ({first}{', ...' if len(numbers) > NAMED else ''})"
