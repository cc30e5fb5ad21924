"""`ratchet replay RUN --step S`: takes a recorded learner step again and says whether it comes to the same.

It needs the run's folder and the model that it names, no Redis and no replica. Exit code 0: the result is the same; 1: it is
not; 2: the step cannot be replayed, or a setting is wrong.
"""

import argparse
import json
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.table import Table

from learner.recorded_steps import RecordedStep
from learner.replay import COMPARED, Replayed, cosine, place_of, replay
from services import entry
from services.config import RunConfig
from services.config.load import load
from services.errors import InputError
from services.run.folder import RunFolder
from services.run.history import open_run

DIFFERENT = 1
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}
"""Relative differences that another order of summation makes, by the model's dtype: other ranks, another device."""


def main() -> int:
    arguments = _parser().parse_args()
    entry.start_logging("replay")
    config, run = open_run(arguments.folder)
    if arguments.device is not None:
        config = config.model_copy(update={"device": arguments.device})
    place = place_of(run, arguments.step)
    altered = altered_settings(run, arguments.overrides) if arguments.overrides else None
    if altered is not None and arguments.device is not None:
        altered = altered.model_copy(update={"device": arguments.device})
    step, own, other = replay(config, place, altered)
    tolerance = TOLERANCES[config.model.dtype] if arguments.tolerance is None else arguments.tolerance
    found = result(step, own, other, tolerance, origin=str(place.checkpoint or config.model.path))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, arguments.overrides)
    return entry.DONE if found["same"] else DIFFERENT


def altered_settings(run: RunFolder, overrides: Sequence[str]) -> RunConfig:
    """The settings of the run with these overrides. A section whose `type` is overridden begins without the keys of the type that
    it had. Raises InputError where they are not valid, or change what is not the learner's."""
    settings = tomllib.loads(run.settings.read_text(encoding="utf-8"))
    for override in overrides:
        dotted, _, value = override.partition("=")
        *sections, key = dotted.strip().split(".")
        if sections[:1] != ["learner"]:
            raise InputError(f"--set {override}: a step is replayed with other settings of [learner] alone")
        if key == "type":
            _without_other_type(settings, sections, value.strip().strip('"'))
    with tempfile.TemporaryDirectory(prefix="ratchet-replay-") as folder:
        path = Path(folder) / "settings.toml"
        path.write_text(tomli_w.dumps(settings), encoding="utf-8")
        return load(path, overrides)


def _without_other_type(settings: dict[str, Any], sections: Sequence[str], kind: str) -> None:
    """Take a section out if its type is not this one."""
    above: Any = settings
    for name in sections[:-1]:
        above = above.get(name, {})
    if above.get(sections[-1], {}).get("type") != kind:
        above.pop(sections[-1], None)


def result(
    step: RecordedStep, own: Replayed, other: Replayed | None, tolerance: float, *, origin: str
) -> dict[str, Any]:
    """What `--json` prints."""
    gaps = [
        abs(now - then)
        for logps, (_, recorded) in zip(own.probes, step.probes, strict=True)
        for now, then in zip(logps, recorded, strict=True)
    ]
    figures = {name: {"recorded": step.report.get(name), "replayed": own.figures[name]} for name in COMPARED}
    probe_gap = max(gaps, default=0.0)
    differs = [name for name, one in figures.items() if not _close(one["recorded"], one["replayed"], tolerance)]
    if probe_gap > tolerance:
        differs.append("probe_gap_nats")
    exact = probe_gap == 0 and all(one["recorded"] == one["replayed"] for one in figures.values())
    found: dict[str, Any] = {
        "step": step.step,
        "from": origin,
        "same": not differs,
        "exact": exact,
        "differs": differs,
        "tolerance": tolerance,
        "figures": figures,
        "probe_gap_nats": probe_gap,
    }
    if other is not None:
        found["altered"] = {**other.figures, "gradient_cosine": cosine(own.gradient, other.gradient)}
    return found


def _close(a: float | None, b: float | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= tolerance * max(abs(a), abs(b)) + tolerance * 1e-2


def show(found: dict[str, Any], overrides: Sequence[str]) -> None:
    """Print it as a table."""
    altered = found.get("altered")
    table = Table(title=f"step {found['step']}, from {found['from']}", title_justify="left")
    for name in ("", "recorded", "replayed", *(["altered"] if altered else [])):
        table.add_column(name, justify="right" if name else "left")
    for name, one in found["figures"].items():
        row = [name, _shown(one["recorded"]), _shown(one["replayed"])]
        table.add_row(*row, *([_shown(altered[name])] if altered else []))
    table.add_row("probe gap, nats", "", _shown(found["probe_gap_nats"]), *([""] if altered else []))
    console = Console()
    console.print(table)
    if found["same"]:
        how = "exactly" if found["exact"] else f"within {found['tolerance']:g}"
        console.print(f"the step comes to the same, {how}", highlight=False)
    else:
        console.print(f"the step does not come to the same: {', '.join(found['differs'])}", highlight=False)
    if altered:
        angle = altered["gradient_cosine"]
        said = "there is none: a gradient is zero or was not applied" if angle is None else f"{angle:.6f}"
        console.print(f"cosine of the gradients, as it was and with {' '.join(overrides)}: {said}", highlight=False)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _parser() -> argparse.ArgumentParser:
    parser = entry.Parser(
        prog="ratchet replay",
        description="Take a recorded learner step again, and say whether it comes to the same; with --set once more under other "
        "settings. In one process, without Redis.",
    )
    parser.add_argument("folder", type=Path, help="the run's folder, such as runs/addition")
    parser.add_argument("--step", type=int, required=True, help="the step, from 1")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="LEARNER.KEY=VALUE",
        help="take the step with this setting, too, as in --set learner.objective.type=grpo; may be repeated",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to compute (default: where the run did)")
    parser.add_argument("--tolerance", type=float, help="largest relative difference that counts as the same")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


if __name__ == "__main__":
    entry.end(main)
