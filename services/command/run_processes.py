"""The processes of one run on this machine: which services, with which settings, GPUs and Redis."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Protocol

from rich.console import Console

from services import entry
from services.command import gpus, slow_check
from services.command.bounded_log import bound_log
from services.command.early_start import EarlyProcess, started_early
from services.command.live_display import LiveDisplay
from services.command.page_process import PAGE_LOG, page_beside
from services.command.redis_server import RedisServer
from services.command.rooms import LEARNER, ROLLOUT, VERIFIER, python_module
from services.command.service_warnings import UP_LOG
from services.command.slow_check import Look, Looked
from services.command.supervisor import Service, Supervisor
from services.command.up_log import up_log
from services.config import RunConfig
from services.config.load import holds_password, render
from services.errors import InputError
from services.run.folder import RunFolder
from services.run.step_in_hand import StepInHand, read_step_in_hand
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import empty_queues


@dataclass(frozen=True)
class RunRedis:
    """The Redis server of one run."""

    url: str
    server: RedisServer | None
    """None: it is not ours."""


@contextlib.contextmanager
def redis_of(config: RunConfig, folder: RunFolder) -> Iterator[RunRedis]:
    """The server named in the environment or in the settings, else one of our own that ends with this block."""
    given = entry.redis_url(config)
    if given:
        entry.redis_connection(config).close()
        yield RunRedis(given, None)
        return
    with RedisServer(folder.redis) as server:
        server.start()
        folder.redis_url.touch(mode=0o600)  # for `ratchet status`
        folder.redis_url.write_text(server.url, encoding="utf-8")
        try:
            yield RunRedis(server.url, server)
        finally:
            folder.redis_url.unlink(missing_ok=True)


def empty_own_queues(config: RunConfig, redis: RunRedis) -> None:
    """Empty the queues that an earlier start of this run left on a server of its own: it has no checkpoint to go on from.

    Waits for: the run's own Redis server, which has just answered.
    Until: deadlines.redis_s for each command.
    Ended by: its answer, or the deadline.
    Metric: none; no service has started.
    """
    connection = RedisConnection(redis.url, deadline_s=config.deadlines.redis_s)
    try:
        empty_queues(connection, config.name)
    finally:
        connection.close()


NONE_EARLY: Mapping[str, EarlyProcess] = MappingProxyType({})


@contextlib.contextmanager
def start_early(config: RunConfig) -> Iterator[Mapping[str, EarlyProcess]]:
    """Have learner and replicas import what they need, while the caller checks the run.

    They end with this block, unless `supervise` has told them to go. None of them starts where GPUs do not suffice, which the
    check says, nor a learner of several ranks, which torchrun starts. The learner's does the slow part of the check.
    """
    try:
        config = gpus.fitted(config)
        learner, feeding = _services(config, RunFolder(config.folder), "", ())
    except InputError:
        yield NONE_EARLY
        return
    commands = {
        service.name: (module, service.whole_environment())
        for service in (*feeding, learner)  # the engine takes longest
        for module in (python_module(ROLLOUT), python_module(LEARNER))
        if list(service.command[: len(module)]) == module
    }
    with started_early(
        config, commands, {learner.name: f"{slow_check.__name__}:{slow_check.answer.__name__}"}
    ) as early:
        yield early


def looked_by(early: Mapping[str, EarlyProcess]) -> Look:
    """The slow part of the check, by the learner's process if it was started early; else, or where it ends, by this one."""

    def look(config: RunConfig) -> Looked:
        learner = early.get(LEARNER)
        found = slow_check.answered(learner.answer()) if learner is not None else None
        return slow_check.look(config) if found is None else found

    return look


class Supervise(Protocol):
    """Starts the services of a run and sees it through: `supervise`, or what a test puts in its place."""

    def __call__(
        self,
        config: RunConfig,
        redis: RunRedis,
        console: Console,
        learner_options: Sequence[str] = (),
        known: Sequence[str] = (),
        early: Mapping[str, EarlyProcess] = NONE_EARLY,
    ) -> int: ...


def supervise(
    config: RunConfig,
    redis: RunRedis,
    console: Console,
    learner_options: Sequence[str] = (),
    known: Sequence[str] = (),
    early: Mapping[str, EarlyProcess] = NONE_EARLY,
) -> int:
    """Start the services of the run and display it until the learner is done or a signal stops it.

    Returns the exit code. Raises what Supervisor.run raises. learner_options: more arguments of the learner. known:
    warnings that the console has shown. early: processes of services that wait for their word (`start_early`).
    """
    config = gpus.fitted(config)
    folder = RunFolder(config.folder)
    shutil.rmtree(folder.services, ignore_errors=True)
    folder.waiting.unlink(missing_ok=True)  # of an earlier start
    write_settings(config, folder)
    learner, feeding = _services(config, folder, redis.url, learner_options)
    for service in (learner, *feeding):
        service.early = early.get(service.name)
    logs = [folder.logs / PAGE_LOG]  # of processes that are not services
    if redis.server is not None:
        logs.append(redis.server.log)
    stopping = entry.StopSignal()
    with (
        up_log(folder.logs / UP_LOG, console),
        page_beside(folder, redis.url, console),
        LiveDisplay(config, console, known) as display,
    ):
        supervisor = Supervisor(
            learner,
            feeding,
            shutdown_s=config.deadlines.shutdown_s,
            redis=redis.server,
            progress=partial(progress, folder),
            tries=partial(tries, folder),
        )

        def tick() -> None:
            display.tick()
            for log in logs:
                bound_log(log)

        return supervisor.run(stopping, tick)


def progress(folder: RunFolder) -> object:
    """A value that changes with every learner step, and with what the learner finds out of a group that kills it."""
    size = folder.steps.stat().st_size if folder.steps.exists() else 0
    return size, _in_hand(folder).found_out if size else ()  # what kills every first step is not for a group


def tries(folder: RunFolder) -> str:
    """What the learner that has just died was trying out, in words; empty: nothing. Before the first step of a run it is nothing:
    then it is not for a group that the learner dies."""
    in_hand = _in_hand(folder)
    if not in_hand.is_trial or not folder.steps.exists():
        return ""
    return f"step {in_hand.step} with {len(in_hand.groups)} of the groups that may have killed it"


def _in_hand(folder: RunFolder) -> StepInHand:
    try:
        return read_step_in_hand(folder.step_in_hand)
    except InputError:
        return StepInHand()  # the learner says so


def write_settings(config: RunConfig, folder: RunFolder) -> None:
    """Write the resolved settings, for the services and `ratchet status`. With a password they are for this user alone."""
    folder.settings.unlink(missing_ok=True)
    folder.settings.touch(mode=0o600 if holds_password(config) else 0o666)
    folder.settings.write_text(render(config), encoding="utf-8")


def _services(
    config: RunConfig, folder: RunFolder, redis_url: str, learner_options: Sequence[str]
) -> tuple[Service, list[Service]]:
    """The learner, and what it depends on, nearest first."""
    ranks = config.learner.ranks
    width = config.rollout.tensor_parallel
    taken = gpus.assigned(config)
    common = [str(folder.settings), "--services-folder", str(folder.services)]

    def service(name: str, command: list[str], own: Sequence[str], **more: str) -> Service:
        environment = {entry.REDIS_URL_VARIABLE: redis_url, **more}
        if own:
            environment[gpus.VARIABLE] = ",".join(own)
        return Service(name, command, folder.logs / f"{name}.log", environment)

    module = [LEARNER, *common, *learner_options]
    if ranks > 1:
        module = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", *module]
    threads = {"OMP_NUM_THREADS": str(config.learner.threads)}
    learner = service("learner", python_module(*module), taken[:ranks], **threads)
    rollouts = [
        service(
            f"rollout-{i}",
            python_module(ROLLOUT, *common, "--replica-id", f"rollout-{i}"),
            taken[ranks + i * width :][:width],
        )
        for i in range(config.rollout.replica_count)
    ]
    return learner, [*rollouts, service("verifier", python_module(VERIFIER, *common), [])]
