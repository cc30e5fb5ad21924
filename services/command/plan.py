"""`ratchet plan`: whether a run will fit, said before anything is loaded."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from services import entry
from services.command.plan_arguments import plan_of
from services.config import RunConfig
from services.plan.changes import changes, stages, together
from services.plan.parts import GIB, Place
from services.plan.plan import HOST, RANK_0, Plan

NOT_FITTING = "DOES NOT FIT"


def run(config: RunConfig, arguments: argparse.Namespace, console: Console | None = None) -> int:
    """Print the plan; BAD_INPUT where it does not fit. Raises InputError where the model's shape is not known."""
    found = plan_of(config, arguments)
    if arguments.json:
        print(json.dumps(as_json(found), indent=2))
    else:
        show(found, console or Console())
    return entry.DONE if found.fits else entry.BAD_INPUT


def show(found: Plan, console: Console) -> None:
    """Print the plan as tables, and what to change where something does not fit."""
    training, settings = found.training, found.training.run
    shape = training.shape
    every = training.trained == shape.parameters
    trained = "all trained" if every else f"{training.trained / 1e6:.1f} M trained"
    _say(console, f"{settings.name}: {shape.name}, {shape.parameters / 1e9:.3g} B parameters, {trained}")
    ranks, replicas = (
        f"{count} {what}{'' if count == 1 else 's'}"
        for count, what in ((training.ranks, "learner rank"), (settings.rollout.replica_count, "replica"))
    )
    _say(
        console,
        f"{settings.model.dtype}, {ranks} at ZeRO stage {training.stage}, {replicas} of "
        f"{settings.rollout.tensor_parallel}",
    )
    console.print(_stages_table(found))
    for place in found.places:
        console.print(_place_table(place))
    for note in found.notes:
        _say(console, note)
    for fault in found.faults:
        _say(console, f"{NOT_FITTING}: {fault}", "red")
    if found.fits:
        return
    for change in changes(found):
        enough = "; then it fits" if change.suffices else ""
        _say(console, f"{change.words} saves {_size(change.saves_bytes)}, and costs {change.cost}{enough}")
    words = together(found)
    _say(
        console,
        f"it fits with {words}" if words else "no settings here make it fit: take a smaller model or more memory",
    )


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)


def _stages_table(found: Plan) -> Table:
    name = HOST if found.training.run.device == "cpu" else None
    table = Table(title="by ZeRO stage", title_justify="left")
    table.add_column("stage")
    table.add_column(name or "fullest learner GPU", justify="right")
    table.add_column("")
    for stage, at in stages(found):
        mark = " (this run)" if stage == found.training.stage else ""
        if at is None:
            table.add_row(f"{stage}{mark}", "-", "the settings refuse it")
            continue
        place = at.place(HOST if name else RANK_0) or at.places[0]
        table.add_row(f"{stage}{mark}", _size(place.peak_bytes), _verdict(place))
    return table


def _place_table(place: Place) -> Table:
    several = f" ({place.count} of them)" if place.count > 1 else ""
    table = Table(title=f"{place.name}{several}", title_justify="left")
    phases = place.phases
    fullest = place.fullest
    table.add_column("")
    table.add_column(fullest if len(phases) > 1 else "", justify="right")
    table.add_column("held" if len(phases) > 1 else "")
    for part in place.parts:
        held = f"{'~' if part.estimated else ''}{_size(part.size_bytes)}"
        when = ", ".join(part.phases) if len(phases) > 1 else ""
        table.add_row(Text(part.name), Text(held, style="" if part.held_in(fullest) else "dim"), when)
    capacity = "" if place.capacity_bytes is None else f" of {_size(place.capacity_bytes)}"
    table.add_section()
    table.add_row("at most at once", f"{_size(place.peak_bytes)}{capacity}", _verdict(place))
    return table


def _verdict(place: Place) -> Text:
    if place.fits is None:
        return Text("")
    return Text("fits") if place.fits else Text(NOT_FITTING, style="bold red")


def _size(size: int) -> str:
    if size < GIB:
        return f"{size / 2**20:.1f} MiB"
    return f"{size / GIB:.2f} GiB" if size < 100 * GIB else f"{size / GIB:.0f} GiB"


def as_json(found: Plan) -> dict[str, Any]:
    """The plan as plain values, sizes in bytes."""
    return {
        "name": found.training.run.name,
        "model": asdict(found.training.shape),
        "trained": found.training.trained,
        "machine": asdict(found.machine),
        "fits": found.fits,
        "places": [
            {**asdict(place), "fullest": place.fullest, "peak_bytes": place.peak_bytes, "fits": place.fits}
            for place in found.places
        ],
        "zero_stages": {stage: None if at is None else at.places[0].peak_bytes for stage, at in stages(found)},
        "faults": found.faults,
        "notes": found.notes,
        "changes": [] if found.fits else [asdict(change) for change in changes(found)],
        "together": None if found.fits else together(found),
    }
