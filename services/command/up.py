"""`ratchet up`: a whole run on this machine, from the check before it starts to the report at its end."""

import json
from collections.abc import Mapping
from contextlib import nullcontext

from rich.console import Console

from services import entry, log_lines
from services.command import preflight, report, shares
from services.command.early_start import EarlyProcess
from services.command.run_lock import locked
from services.command.run_processes import (
    NONE_EARLY,
    Supervise,
    empty_own_queues,
    looked_by,
    redis_of,
    start_early,
    supervise,
)
from services.command.shown import place, terminal
from services.command.up_log import say, warn
from services.config import RunConfig
from services.errors import InputError
from services.run.checkpoint_names import checkpoint_name, checkpoints_in, latest_checkpoint, policy_version_of
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.left_out import write_left_out
from services.run.summary import newest


def up(config: RunConfig, supervise: Supervise = supervise) -> int:
    """Start the run, or resume it, and see it through; the exit code. Raises InputError before anything is started."""
    if log_lines.is_json():
        entry.start_logging("up")
    console = terminal()
    folder = RunFolder(config.folder)
    chosen = shares.chosen_here(config)
    config = shares.with_choices(config, chosen)
    # What is imported for nothing if the check fails costs a second; what is imported after it, the whole run waits for.
    with nullcontext(NONE_EARLY) if finished(config) else start_early(config) as early:
        checked = preflight.check(config, slow=looked_by(early))
        for warning in checked.warnings:
            warn(console, warning)
        if finished(config):
            say(
                console,
                f"{place(folder.path)} is finished; raise learner.steps to go on, or choose another name for a new run.",
            )
            return entry.DONE
        for one in chosen:
            say(console, f"chosen for this machine: {one}")
        code = _run(config, folder, checked, early, supervise, console)
    if folder.summary.exists() and code == entry.DONE:
        report.draw(folder)
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
        if log_lines.is_json():
            say(console, f"{config.name} is done: {summary['steps']} steps", **summary)
        else:
            report.show(folder, summary, console)
    elif code == entry.INTERRUPTED:
        say(console, _stopped(folder))
    return code


def _run(
    config: RunConfig,
    folder: RunFolder,
    checked: preflight.Checked,
    early: Mapping[str, EarlyProcess],
    supervise: Supervise,
    console: Console,
) -> int:
    with locked(folder):
        if folder.evaluation_mark.exists():
            raise InputError(
                f"{folder.path} is the folder of a `ratchet eval`; choose another name, or delete it first"
            )
        write_left_out(folder.left_out, checked.left_out)
        with redis_of(config, folder) as redis:
            if redis.server is not None and latest_checkpoint(folder.checkpoints) is None:
                empty_own_queues(config, redis)
            say(console, f"run folder {place(folder.path)} (logs in {place(folder.logs)})")
            return supervise(config, redis, console, known=checked.warnings, early=early)


def finished(config: RunConfig) -> bool:
    """Whether the last step was taken, its model exported and the summary written."""
    folder = RunFolder(config.folder)
    final = folder.checkpoints / checkpoint_name(config.learner.steps)
    return final.is_dir() and folder.summary.exists() and folder.export.is_dir()


def _stopped(folder: RunFolder) -> str:
    """What the next start resumes from: the learner may have been killed, or stopped before its first step."""
    checkpoints = checkpoints_in(folder.checkpoints)
    if not checkpoints:
        return "stopped before the first checkpoint; the same command starts from the beginning."
    saved = policy_version_of(checkpoints[-1])
    steps = newest(read_json_lines(folder.steps), "step")
    lost = steps[-1]["step"] - saved if steps else 0
    again = f", and repeats the {lost} steps after it" if lost > 0 else ""
    return f"stopped; the same command resumes from the checkpoint of step {saved}{again}."
