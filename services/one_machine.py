"""`ratchet up` and `ratchet eval`: a whole run on this machine."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from services import entry, preflight, report
from services.config import RunConfig
from services.config.load import render
from services.errors import InputError
from services.metrics import read_json_lines
from services.progress import Progress
from services.redis_server import RedisServer
from services.run_folder import RunFolder
from services.summary import newest
from services.supervisor import Service, Supervisor, python_module


def up(config: RunConfig) -> int:
    """Start, or resume, and see it through; the exit code. Raises InputError before anything is started."""
    console, folder = Console(), RunFolder(config.folder)
    for warning in preflight.check(config):
        console.print(f"[yellow]warning:[/] {warning}", highlight=False)
    if finished(config):
        console.print(f"{folder.path} is finished; raise learner.steps to go on, or choose another name for a new run.")
        return entry.DONE
    with _running(config, folder) as environment:
        console.print(f"run folder {folder.path} (logs in {folder.logs})", highlight=False, soft_wrap=True)
        code = _supervise(config, environment, console, [])
    if folder.summary.exists() and code == entry.DONE:
        report.draw(folder)
        report.show(folder, json.loads(folder.summary.read_text(encoding="utf-8")), console)
    elif code == entry.INTERRUPTED:
        console.print("stopped, with a checkpoint; the same command goes on from there.")
    return code


def evaluate(config: RunConfig, model: Path | None) -> int:
    """Held-out accuracy of `model`, or of the latest checkpoint of this run."""
    console = Console()
    original = config
    if model is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"path": str(model.resolve())})})
    config = config.model_copy(update={"name": f"{config.name}.eval"})
    preflight.check(config)
    folder = RunFolder(config.folder)
    shutil.rmtree(folder.path, ignore_errors=True)
    if model is None:
        checkpoints = RunFolder(original.folder).checkpoints
        if not checkpoints.is_dir():
            raise InputError(f"{original.folder} has no checkpoint to evaluate; give a model folder with --model")
        folder.path.mkdir(parents=True)
        folder.checkpoints.symlink_to(checkpoints)
    with _running(config, folder) as environment:
        code = _supervise(config, environment, console, ["--evaluate-only"])
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


@contextlib.contextmanager
def _running(config: RunConfig, folder: RunFolder) -> Iterator[dict[str, str]]:
    """The run's folder, locked, with Redis; gives the environment its services need."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with (folder.path / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder.path} is in use by another `ratchet up`; choose another name, or stop that one"
            ) from None
        shutil.rmtree(folder.services, ignore_errors=True)
        folder.settings.write_text(render(config), encoding="utf-8")
        given = os.environ.get(entry.REDIS_URL_VARIABLE) or config.redis.url
        if given:
            entry.redis_connection(config).close()
            yield {entry.REDIS_URL_VARIABLE: given}
            return
        with RedisServer(folder.redis) as server:
            server.start()
            secret = folder.path / ".redis-url"  # for `ratchet status`
            secret.touch(mode=0o600)
            secret.write_text(server.url, encoding="utf-8")
            try:
                yield {entry.REDIS_URL_VARIABLE: server.url}
            finally:
                secret.unlink(missing_ok=True)


def _supervise(config: RunConfig, environment: dict[str, str], console: Console, learner_options: list[str]) -> int:
    folder = RunFolder(config.folder)
    common = [str(folder.settings), "--services-folder", str(folder.services)]

    def service(name: str, command: list[str], **extra: str) -> Service:
        return Service(name, command, folder.logs / f"{name}.log", {**environment, **extra})

    ranks, width = config.learner.ranks, config.rollout.tensor_parallel
    module = ["learner", *common, *learner_options]
    if ranks > 1:
        module = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", *module]
    threads = {"OMP_NUM_THREADS": str(config.learner.cpu_threads)}
    learner = service("learner", python_module(*module), **threads, **_gpus(config, 0, ranks))
    rollouts = [
        service(
            f"rollout-{i}",
            python_module("rollout", *common, "--replica-id", f"rollout-{i}"),
            **_gpus(config, ranks + i * width, width),
        )
        for i in range(config.rollout.replicas)
    ]
    verifier = service("verifier", python_module("verifier", *common))
    stopping = entry.StopSignal()
    with Progress(config, console) as progress:
        supervisor = Supervisor(learner, [*rollouts, verifier], shutdown_s=config.deadlines.shutdown_s)
        return supervisor.run(stopping, progress.tick)


def _gpus(config: RunConfig, first: int, count: int) -> dict[str, str]:
    """The learner's ranks have the first GPUs, then each replica its own."""
    if config.device == "cpu":
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in range(first, first + count))}
