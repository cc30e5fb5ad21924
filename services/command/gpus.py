"""Which GPUs the processes of a run get, of those that this process may use, and which of them share one."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from services.command.nvidia import NvidiaSmi
from services.config import RunConfig
from services.config.rollout import SHARED_CACHE_GIB
from services.errors import InputError

VARIABLE = "CUDA_VISIBLE_DEVICES"
OF_THE_DRIVER = Path("/proc/driver/nvidia/gpus")
"""Has a folder for each GPU; Windows' Linux has none, though there may be GPUs."""


def assigned(config: RunConfig) -> list[str]:
    """A GPU for each process that computes on one: first for the learner's ranks, then for the workers of each replica.

    With weights.type = "gloo" the GPUs are dealt out again from the first one where there are fewer than processes. The ranks
    of the learner meet over NCCL, and so do the workers of a replica: those never share one.

    Raises InputError if there are too few. Where none is known, the GPUs are numbered and not counted.
    """
    if config.device == "cpu":
        return []
    needed = _needed(config)
    there = visible()
    if there is None:
        return [str(number) for number in range(needed)]
    if len(there) < needed and (config.weights.type == "nccl" or len(there) < _least(config)):
        raise InputError(_too_few(config, len(there)))
    return list(itertools.islice(itertools.cycle(there), needed))


def visible() -> list[str] | None:
    """The names by which CUDA knows the GPUs that this process may use; None where nothing says how many there are."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        # As CUDA reads it: indices or UUIDs; entries after the first invalid one are ignored.
        return list(
            itertools.takewhile(lambda name: name not in ("", "-1"), (name.strip() for name in given.split(",")))
        )
    count = len(list(OF_THE_DRIVER.glob("*"))) or len(NvidiaSmi().cards_or_none())
    return [str(number) for number in range(count)] if count else None


def check(config: RunConfig) -> list[str]:
    """Warnings of GPUs that are not there or hard to share. Raises InputError if there are some and they are too few."""
    taken = assigned(config)
    if not taken:
        return []
    if visible() is None:
        return [f"{_asks(config)}; this machine has none, so the run is checked for another"]
    if shared(taken) and config.rollout.gpu_memory_fraction is not None:
        return [
            f"learner and replicas share GPUs, and rollout.gpu_memory_fraction = {config.rollout.gpu_memory_fraction} lets the "
            "engine measure what is free while the learner takes its memory, so it may fail at first; set rollout.kv_cache_gib "
            "instead, which measures nothing"
        ]
    return []


def shared(taken: Sequence[str]) -> bool:
    """Whether two processes have the same GPU."""
    return len(set(taken)) < len(taken)


def fitted(config: RunConfig) -> RunConfig:
    """The settings with which the services start: on shared GPUs the engine's cache has a fixed size.

    By default the engine takes a fraction of the GPU, less what it finds taken. Beside a learner, which takes its memory at
    the same time, that is a race.
    """
    rollout = config.rollout
    if not shared(assigned(config)) or rollout.kv_cache_gib is not None or rollout.gpu_memory_fraction is not None:
        return config
    return config.model_copy(update={"rollout": rollout.model_copy(update={"kv_cache_gib": SHARED_CACHE_GIB})})


def _needed(config: RunConfig) -> int:
    return config.learner.ranks + config.rollout.replica_count * config.rollout.tensor_parallel


def _least(config: RunConfig) -> int:
    return max(config.learner.ranks, config.rollout.tensor_parallel)


def _asks(config: RunConfig) -> str:
    return (
        f'device = "cuda" and the run takes {_needed(config)} GPUs (learner.ranks = {config.learner.ranks}, rollout.replicas = '
        f"{config.rollout.replica_count} of rollout.tensor_parallel = {config.rollout.tensor_parallel})"
    )


def _too_few(config: RunConfig, there: int) -> str:
    given = os.environ.get(VARIABLE)
    where = f"this machine has {there}" if given is None else f'{VARIABLE} = "{given}" names {there}'
    said = f"{_asks(config)}, and {where}"
    if there == 0:
        return f'{said}; let it see GPUs, or set device = "cpu"'
    if there < _least(config):
        return (
            f"{said}: the learner's ranks need a GPU each, and so do the {config.rollout.tensor_parallel} workers of a replica; "
            "lower these, or let it see more GPUs"
        )
    return (
        f'{said}: with weights.type = "{config.weights.type}" no two processes share one. Set weights.type = "gloo" and '
        'weights.host = "127.0.0.1" to share them (docs/deploying.md, "One GPU"), lower these, or let it see more GPUs'
    )
