"""What `ratchet up` chooses where the run file says "auto": how many replicas, and the threads of everything that computes.

On GPU a replica takes the GPUs that the learner leaves. On CPU nothing is gained by more threads than cores, so the cores are
dealt out once: from four cores on one is left to Redis, the verifier and the services' own threads; half of the others is the
learner's, the rest samples. A number in the run file stays as it is, and the others are chosen around it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.command import gpus
from services.config import RunConfig
from services.plan.replica import replicas_on

CORES_OF_A_REPLICA = 4
"""Cores on which one engine samples before another one does. A choice, measured on two cores alone."""
CORES_TO_SPARE_ONE = 4
MOST_ON_CPU = 4
"""Replicas on CPU, each of which takes memory for an engine: what samples there is small."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A number that nobody has given."""

    section: str
    key: str
    number: int
    why: str

    def __str__(self) -> str:
        return f"{self.section}.{self.key} = {self.number}: {self.why}"


def choices(config: RunConfig, cores: int, gpu_count: int | None) -> list[Choice]:
    """A number for each setting that is "auto". cores: those that this process may use. gpu_count: the same; None: not known."""
    chosen = _on_cpu(config, cores) if config.device == "cpu" else _on_gpu(config, gpu_count)
    if config.verifier.url is None:
        graders = max(2, cores // 4)
        why = f"a quarter of {cores} cores" if graders > 2 else f"the least, on {cores} cores"
        chosen.append(Choice("verifier", "processes", graders, why))
    return [one for one in chosen if getattr(getattr(config, one.section), one.key) == "auto"]


def _on_cpu(config: RunConfig, cores: int) -> list[Choice]:
    learner, rollout = config.learner, config.rollout
    to_spare = 1 if cores >= CORES_TO_SPARE_ONE else 0
    at_work = cores - to_spare
    half = max(1, at_work // 2)
    threads = max(1, half // learner.ranks) if learner.cpu_threads == "auto" else learner.cpu_threads
    left = max(1, at_work - learner.ranks * threads)
    spared = f"{cores} cores" + (" less one for the other services" if to_spare else "")
    chosen = [
        Choice("learner", "cpu_threads", threads, f"half of {spared}, for learner.ranks = {learner.ranks}"),
    ]
    of_sampling = f"{left} of {cores} cores are left for sampling"
    each = CORES_OF_A_REPLICA if rollout.cpu_threads == "auto" else rollout.cpu_threads
    if rollout.metrics_port != 0:
        replicas, why = 1, f"rollout.metrics_port = {rollout.metrics_port} is that of one"
    else:
        replicas = min(MOST_ON_CPU, max(1, left // each))
        why = f"{of_sampling}, one engine takes {each} of them, and on CPU there are at most {MOST_ON_CPU}"
    chosen.append(Choice("rollout", "replicas", replicas, why))
    count = replicas if rollout.replicas == "auto" else rollout.replicas
    chosen.append(
        Choice("rollout", "cpu_threads", max(1, left // count), f"{of_sampling}, for rollout.replicas = {count}")
    )
    return chosen


def _on_gpu(config: RunConfig, gpu_count: int | None) -> list[Choice]:
    ranks, width, port = config.learner.ranks, config.rollout.tensor_parallel, config.rollout.metrics_port
    if gpu_count is None:
        replicas, why = 1, "no GPU is known here"
    else:
        replicas = replicas_on(config, gpu_count)
        why = f"{gpu_count} GPUs less learner.ranks = {ranks}, at rollout.tensor_parallel = {width}"
        if port != 0:
            why = f"rollout.metrics_port = {port} is that of one"
    return [
        Choice("rollout", "replicas", replicas, why),
        Choice("learner", "cpu_threads", 1, "the learner computes on its GPU"),
        Choice("rollout", "cpu_threads", 1, "the engine computes on its GPU"),
    ]


def with_choices(config: RunConfig, chosen: Sequence[Choice]) -> RunConfig:
    """The settings with these numbers."""
    sections: dict[str, dict[str, Any]] = {}
    for one in chosen:
        sections.setdefault(one.section, {})[one.key] = one.number
    update: Mapping[str, Any] = {
        name: getattr(config, name).model_copy(update=numbers) for name, numbers in sections.items()
    }
    return config.model_copy(update=update)


def chosen_here(config: RunConfig) -> list[Choice]:
    """What is chosen on this machine. Raises nothing: whether there are enough GPUs is checked elsewhere."""
    there = gpus.visible() if config.device == "cuda" else []
    return choices(config, len(os.sched_getaffinity(0)), None if there is None else len(there))
