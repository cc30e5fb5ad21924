"""`ratchet up` and `ratchet eval`: a whole run on this machine."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from services import entry
from services.command import preflight, report
from services.command.live_display import Progress
from services.command.redis_server import RedisServer
from services.command.supervisor import Service, Supervisor, python_module
from services.config import RunConfig
from services.config.load import holds_password, render
from services.errors import InputError
from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from services.run.summary import newest


def up(config: RunConfig) -> int:
    """Start, or resume, and see it through; the exit code. Raises InputError before anything is started."""
    console, folder = Console(), RunFolder(config.folder)
    for warning in preflight.check(config):
        console.print(f"[yellow]warning:[/] {warning}", highlight=False)
    if finished(config):
        console.print(f"{folder.path} is finished; raise learner.steps to go on, or choose another name for a new run.")
        return entry.DONE
    with _locked(folder):
        if folder.evaluation_mark.exists():
            raise InputError(
                f"{folder.path} is the folder of a `ratchet eval`; choose another name, or delete it first"
            )
        with _redis(config, folder) as redis:
            console.print(f"run folder {folder.path} (logs in {folder.logs})", highlight=False, soft_wrap=True)
            code = _supervise(config, redis, console, [])
    if folder.summary.exists() and code == entry.DONE:
        report.draw(folder)
        report.show(folder, json.loads(folder.summary.read_text(encoding="utf-8")), console)
    elif code == entry.INTERRUPTED:
        console.print(_stopped(folder), highlight=False, soft_wrap=True)
    return code


def evaluate(config: RunConfig, model: Path | None) -> int:
    """Held-out accuracy of `model`, or of the latest checkpoint of this run."""
    console = Console()
    original = config
    if model is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(model.resolve())})})
    config = config.model_copy(update={"name": f"{config.name}.eval"})
    preflight.check(config)
    folder, checkpoints = RunFolder(config.folder), RunFolder(original.folder).checkpoints
    if model is None and not checkpoints.is_dir():
        raise InputError(f"{original.folder} has no checkpoint to evaluate; give a model folder with --model")
    with _locked(folder):
        _empty(folder)
        if model is None:
            folder.checkpoints.symlink_to(checkpoints)
        with _redis(config, folder) as redis:
            code = _supervise(config, redis, console, ["--evaluate-only"])
        rows = newest(read_json_lines(folder.evaluations), "policy_version")
    if code == entry.DONE and rows:
        found = rows[-1]
        what = str(model) if model is not None else f"{original.name} at policy version {found['policy_version']}"
        console.print(
            f"{what}: avg@{found['k']} {found['avg_at_k']:.4f}, pass@{found['k']} {found['pass_at_k']:.4f} "
            f"on {found['prompts']} held-out prompts",
            highlight=False,
            soft_wrap=True,
        )
    return code


def finished(config: RunConfig) -> bool:
    """The last step was reached and its summary written."""
    folder = RunFolder(config.folder)
    final = folder.checkpoints / f"step-{config.learner.steps:08d}"
    return final.is_dir() and folder.summary.exists() and folder.export.is_dir()


@dataclass(frozen=True)
class _Redis:
    """Of one run."""

    url: str
    server: RedisServer | None
    """If it is our own."""


@contextlib.contextmanager
def _locked(folder: RunFolder) -> Iterator[None]:
    """The run's folder, for nobody else meanwhile."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder.path} is in use by another `ratchet up` or `ratchet eval`; choose another name, or stop that one"
            ) from None
        yield


def _empty(folder: RunFolder) -> None:
    """Delete what the evaluation before left. Raises InputError when the folder may be anything else."""
    left = [path for path in folder.path.iterdir() if path not in (folder.lock, folder.evaluation_mark)]
    if left and not folder.evaluation_mark.exists():
        raise InputError(
            f"{folder.path} is where this evaluation would go, and holds what no evaluation is known to have left. "
            "Move it away, or delete it if nothing in it is needed"
        )
    folder.evaluation_mark.touch()
    for path in left:
        if path.is_dir() and not path.is_symlink():  # `checkpoints` is a link to those of the run
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def _redis(config: RunConfig, folder: RunFolder) -> Iterator[_Redis]:
    """The server named in the environment or in the settings, else one of our own for as long as this lasts."""
    given = os.environ.get(entry.REDIS_URL_VARIABLE) or config.redis.url
    if given:
        entry.redis_connection(config).close()
        yield _Redis(given, None)
        return
    with RedisServer(folder.redis) as server:
        server.start()
        secret = folder.path / ".redis-url"  # for `ratchet status`
        secret.touch(mode=0o600)
        secret.write_text(server.url, encoding="utf-8")
        try:
            yield _Redis(server.url, server)
        finally:
            secret.unlink(missing_ok=True)


def _write_settings(config: RunConfig, folder: RunFolder) -> None:
    """With a password in them they are for this user alone: services have it from the environment, `ratchet status` not."""
    folder.settings.unlink(missing_ok=True)
    folder.settings.touch(mode=0o600 if holds_password(config) else 0o666)
    folder.settings.write_text(render(config), encoding="utf-8")


def _stopped(folder: RunFolder) -> str:
    """What an interrupted run goes on from: the learner may have been stopped before its first step, or killed."""
    saved = max((int(path.name.rpartition("-")[2]) for path in folder.checkpoints.glob("step-*")), default=None)
    if saved is None:
        return "stopped before the first checkpoint; the same command starts from the beginning."
    steps = newest(read_json_lines(folder.steps), "step")
    lost = steps[-1]["step"] - saved if steps else 0
    again = f", and takes the {lost} steps after it again" if lost > 0 else ""
    return f"stopped; the same command goes on from the checkpoint of step {saved}{again}."


def _supervise(config: RunConfig, redis: _Redis, console: Console, learner_options: list[str]) -> int:
    folder = RunFolder(config.folder)
    shutil.rmtree(folder.services, ignore_errors=True)
    _write_settings(config, folder)
    common = [str(folder.settings), "--services-folder", str(folder.services)]

    def service(name: str, command: list[str], **extra: str) -> Service:
        return Service(name, command, folder.logs / f"{name}.log", {entry.REDIS_URL_VARIABLE: redis.url, **extra})

    ranks, width = config.learner.ranks, config.rollout.tensor_parallel
    visible = preflight.gpus(config)
    module = ["learner", *common, *learner_options]
    if ranks > 1:
        module = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", *module]
    threads = {"OMP_NUM_THREADS": str(config.learner.cpu_threads)}
    learner = service("learner", python_module(*module), **threads, **_only(visible[:ranks]))
    rollouts = [
        service(
            f"rollout-{i}",
            python_module("rollout", *common, "--replica-id", f"rollout-{i}"),
            **_only(visible[ranks + i * width :][:width]),
        )
        for i in range(config.rollout.replicas)
    ]
    verifier = service("verifier", python_module("verifier", *common))
    stopping = entry.StopSignal()
    with Progress(config, console) as progress:
        supervisor = Supervisor(
            learner, [*rollouts, verifier], shutdown_s=config.deadlines.shutdown_s, redis=redis.server
        )
        return supervisor.run(stopping, progress.tick)


def _only(gpus: list[str]) -> dict[str, str]:
    return {preflight.GPUS_VARIABLE: ",".join(gpus)} if gpus else {}
