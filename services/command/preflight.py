"""Checks of what can be known to be wrong before anything expensive starts: libraries, model, datasets, lengths, ports, GPUs."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from services import numa
from services.command import gpus
from services.command.check_places import check_folder, check_ports, check_redis, check_verifier
from services.command.check_rows import check_datasets, problems_of
from services.command.environment_check import check_environment_name
from services.command.objective_check import check_objective
from services.command.slow_check import Look
from services.command.slow_check import look as look_here
from services.config import RunConfig
from services.config.effect import ineffective
from services.datasets.dataset import Problem
from services.errors import InputError


@dataclass(frozen=True)
class Checked:
    """What a run was found to be."""

    warnings: list[str] = field(default_factory=list)
    """Settings that are allowed and rarely meant, and rows that are left out."""
    left_out: dict[str, tuple[list[Problem], set[int]]] = field(default_factory=dict)
    """Section of prompts -> its problems, and the rows of those whose references no grader can judge."""


def check(config: RunConfig, *, quick: bool = False, slow: Look = look_here) -> Checked:
    """Check the run. Raises InputError, which says everything that is wrong with settings and places, or with the files.

    quick: leave out what takes more than a second: the model's files and the rows of the datasets. slow: looks at these; in
    this process unless somebody else does.
    """
    faults: list[str] = []
    warnings: list[str] = []

    def look(at: Callable[[], list[str] | None]) -> None:
        try:
            warnings.extend(at() or ())
        except InputError as fault:
            faults.append(str(fault))

    if config.device == "cpu":
        look(lambda: _check_machine(config))
    look(lambda: check_objective(config))
    look(config.tracking.check_packages)
    look(lambda: check_folder(config))
    look(lambda: check_ports(config))
    look(lambda: check_redis(config))
    look(lambda: check_verifier(config))
    look(lambda: check_environment_name(config))
    look(lambda: gpus.check(config))
    if not quick:
        look(lambda: check_datasets(config))
    if faults:
        raise InputError("\n".join(faults))
    left_out: dict[str, tuple[list[Problem], set[int]]] = {}
    if not quick:
        looked = slow(config)
        if looked.fault is not None:
            raise InputError(looked.fault)
        warnings += looked.warnings
        left_out = {section: (problems_of(config, section), set(rows)) for section, rows in looked.ungradable.items()}
    return Checked([*warnings, *_rarely_meant(config), *ineffective(config)], left_out)


def _rarely_meant(config: RunConfig) -> list[str]:
    warnings = []
    reference = config.learner.reference
    least = 5 * (config.learner.max_lag + 1) * config.learner.mini_batches
    one_way = config.learner.objective.type in ("owpo", "owpo_reinforce")
    if one_way and reference.type == "ratchet" and reference.every_steps < least:
        warnings.append(
            f"learner.reference.every_steps = {reference.every_steps} is below 5 x (max_lag + 1) x mini_batches = {least}: "
            "the reference is then hardly older than the data, and one-way weights are noise"
        )
    optimizer, steps = config.learner.optimizer, config.learner.steps
    if config.learner.lora is not None and "learning_rate" not in optimizer.model_fields_set:
        warnings.append(
            f"learner.optimizer.learning_rate is not set, and its default {optimizer.learning_rate:g} is for full training; "
            "adapters (learner.lora) take about ten times the rate"
        )
    if optimizer.warmup_steps >= steps:
        highest = steps / (optimizer.warmup_steps + 1)  # learner/control/schedule.py
        warnings.append(
            f"learner.optimizer.warmup_steps = {optimizer.warmup_steps} is not below learner.steps = {steps}: the learning rate "
            f"gets no higher than {highest:.2g} of learner.optimizer.learning_rate; lower warmup_steps"
        )
    threads = (
        config.learner.ranks * config.learner.threads + config.rollout.replica_count * config.rollout.engine_threads
    )
    cores = len(os.sched_getaffinity(0))
    if config.device == "cpu" and threads > 2 * cores:
        warnings.append(
            f"the run computes with {threads} threads (learner.ranks x learner.cpu_threads + rollout.replicas x "
            f"rollout.cpu_threads), and this machine has {cores} cores"
        )
    return warnings


def _check_machine(config: RunConfig) -> None:
    """What vLLM's CPU build takes from the machine, and would otherwise die without in the middle of its start."""
    numa.provide()
    if not config.engine_is_eager and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise InputError(
            "rollout.enforce_eager = false has vLLM compile the model with a C++ compiler, and there is no g++ here; "
            "install it (Debian, Ubuntu: apt-get install g++), or leave rollout.enforce_eager out"
        )
