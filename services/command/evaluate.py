"""`ratchet eval`: the held-out accuracy of a model, measured in a folder of its own next to the run's."""

import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from services import entry
from services.command import preflight, shares
from services.command.run_lock import locked
from services.command.run_processes import Supervise, redis_of, supervise
from services.config import RunConfig
from services.errors import InputError, ServiceFailed
from services.numbers import count, number
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.left_out import write_left_out
from services.run.summary import newest


def evaluate(config: RunConfig, model: Path | None, supervise: Supervise = supervise) -> int:
    """Measure `model`, or the latest checkpoint of this run if it is None, and print the result; the exit code.

    Raises InputError if there is nothing to evaluate, before anything is started, and ServiceFailed if nothing came of it.
    """
    console = Console()
    name = config.name
    checkpoints = RunFolder(config.folder).checkpoints
    if model is None and not checkpoints.is_dir():
        raise InputError(f"{config.folder} has no checkpoint to evaluate; give a model folder with --model")
    if model is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(model.resolve())})})
    config = config.model_copy(update={"name": f"{name}.eval"})
    config = shares.with_choices(config, shares.chosen_here(config))
    checked = preflight.check(config)
    folder = RunFolder(config.folder)
    with locked(folder):
        _empty(folder)
        write_left_out(folder.left_out, checked.left_out)
        if model is None:
            folder.checkpoints.symlink_to(checkpoints)
        with redis_of(config, folder) as redis:
            code = supervise(config, redis, console, ["--evaluate-only"])
        rows = newest(read_json_lines(folder.evaluations), "policy_version")
    if code == entry.DONE:
        if not rows or not rows[-1]["prompts"]:
            raise ServiceFailed(
                f"the evaluation has no result: {_why(rows)}. {folder.logs} says more, in learner.log and verifier.log"
            )
        found = rows[-1]
        what = str(model) if model is not None else f"{name} at policy version {found['policy_version']}"
        console.print(
            f"{what}: avg@{found['k']} {number(found['avg_at_k'], 4)}, pass@{found['k']} {number(found['pass_at_k'], 4)} "
            f"on {count(found['prompts'])} held-out prompts"
            + "".join(f", {name} {number(own['avg_at_k'], 4)}" for name, own in found.get("sources", {}).items()),
            highlight=False,
            soft_wrap=True,
        )
    return code


def _why(rows: list[dict[str, Any]]) -> str:
    """Why there is none, as far as the learner's row says."""
    if not rows:
        return "the learner ended without one"
    return f"none of the {count(rows[-1]['missing'])} held-out prompts came back; each is dead or was sampled under other weights"


def _empty(folder: RunFolder) -> None:
    """Delete what the previous evaluation left. Raises InputError if the folder may be anything else."""
    left = [path for path in folder.path.iterdir() if path not in (folder.lock, folder.evaluation_mark)]
    if left and not folder.evaluation_mark.exists():
        raise InputError(
            f"{folder.path} is where this evaluation would go, and it holds files that no evaluation is known to have left. "
            "Move it away, or delete it if nothing in it is needed"
        )
    folder.evaluation_mark.touch()
    for path in left:
        if path.is_dir() and not path.is_symlink():  # `checkpoints` is a link to those of the run
            shutil.rmtree(path)
        else:
            path.unlink()
