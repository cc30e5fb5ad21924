"""Checks of what can be known to be wrong before anything expensive starts: libraries, model, datasets, lengths, ports, GPUs."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from services import numa
from services.command import gpus
from services.command.check_memory import check_memory
from services.command.check_places import check_folder, check_ports, check_redis, check_verifier
from services.command.check_rows import check_datasets, check_rows, taken
from services.command.environment_check import check_environment, check_environment_name
from services.command.objective_check import check_objective
from services.config import RunConfig
from services.config.effect import ineffective
from services.datasets.dataset import Problem
from services.errors import InputError
from services.models.adapted import adapted_layers, check_same_adapters
from services.models.folder import read_model_folder
from services.run import made_of
from services.run.checkpoint_files import newest_whole, read_object
from services.run.folder import RunFolder


@dataclass(frozen=True)
class Checked:
    """What a run was found to be."""

    warnings: list[str] = field(default_factory=list)
    """Settings that are allowed and rarely meant, and rows that are left out."""
    left_out: dict[str, tuple[list[Problem], set[int]]] = field(default_factory=dict)
    """Section of prompts -> its problems, and the rows of those whose references no grader can judge."""


def check(config: RunConfig, *, quick: bool = False) -> Checked:
    """Check the run. Raises InputError, which says everything that is wrong with settings and places, or with the files.

    quick: leave out what takes more than a second: the model's files and the rows of the datasets.
    """
    faults: list[str] = []
    warnings: list[str] = []
    left_out: dict[str, tuple[list[Problem], set[int]]] = {}

    def look(at: Callable[[], list[str] | None]) -> bool:
        try:
            warnings.extend(at() or ())
        except InputError as fault:
            faults.append(str(fault))
            return False
        return True

    def rows() -> list[str]:
        found, said = check_rows(config)
        left_out.update({one.section: (one.problems, one.ungradable) for one in found})
        training = [problem for one in found if one.is_trained_on for problem in taken(config, one)]
        held_out = [problem for one in found if not one.is_trained_on for problem in one.problems]
        check_checkpoint(config, training, held_out if config.evaluation else None)
        return said + check_environment(config, training[0])

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
    # What takes longer comes last, and is left for the next time when there is something to mend already.
    if not quick and not faults and look(lambda: _check_models(config)) and look(lambda: check_memory(config)):
        look(rows)
    if faults:
        raise InputError("\n".join(faults))
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


def check_checkpoint(config: RunConfig, training: Sequence[Problem], held_out: Sequence[Problem] | None) -> None:
    """Raises InputError if every checkpoint of the run is damaged, or the newest that is not is of something else or of other
    adapters. The learner says what is damaged."""
    checkpoint = newest_whole(RunFolder(config.folder).checkpoints)
    if checkpoint is None:
        return
    now = made_of.made_of(config, training, held_out)
    saved = made_of.saved_in(checkpoint)
    written = read_object(checkpoint, "engine.json")
    made_of.check(
        saved,
        now,
        config.learner.checkpoint.accept_changed,
        origin=str(checkpoint),
        needed=made_of.needed_again(config),
    )
    check_same_adapters(str(checkpoint), written.get("lora"), config.learner.lora)


def _check_machine(config: RunConfig) -> None:
    """What vLLM's CPU build takes from the machine, and would otherwise die without in the middle of its start."""
    numa.provide()
    if not config.engine_is_eager and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise InputError(
            "rollout.enforce_eager = false has vLLM compile the model with a C++ compiler, and there is no g++ here; "
            "install it (Debian, Ubuntu: apt-get install g++), or leave rollout.enforce_eager out"
        )


def _check_models(config: RunConfig) -> None:
    models: list[tuple[str, str, bool, int | None, Literal["cpu", "cuda"] | None]] = [
        ("model.path", config.model.path, config.model.trust_remote_code, config.model.max_length, config.device)
    ]
    models += [
        (f"learner.teachers.{i}.path", teacher.path, teacher.trust_remote_code, None, None)
        for i, teacher in enumerate(config.learner.teachers)
    ]
    for setting, name, trusted, max_length, device in models:
        if Path(name).is_absolute():  # else a hub name: the first service that loads it says what is wrong
            facts = read_model_folder(
                setting, Path(name), max_length=max_length, trust_remote_code=trusted, device=device
            )
            if max_length is not None and facts.positions is not None and max_length > facts.positions:
                raise InputError(
                    f"model.max_length = {max_length} is above the {facts.positions} positions that the model in {name} has; "
                    f"lower it to {facts.positions} or less"
                )
            if setting == "model.path" and config.learner.lora is not None and facts.linear_layers is not None:
                adapted_layers(setting, name, facts.linear_layers, config.learner.lora)
