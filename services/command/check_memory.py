"""Whether a run fits into the memory of this machine, asked before it starts: a warning, or an error where it cannot."""

from services.command.plan_arguments import at_hand, this_machine
from services.config import RunConfig
from services.errors import InputError
from services.plan.learner import Training
from services.plan.parts import GIB, Place
from services.plan.plan import HOST, RANK_0, Plan, plan


def check_memory(config: RunConfig) -> list[str]:
    """Warnings about places that the plan says are too small; [] where the model or the GPUs are not here.

    Takes milliseconds, and what nvidia-smi takes where there is a GPU. Raises InputError where what the learner holds at all
    times, without any estimate, is more than there is.
    """
    try:
        shape = at_hand("model.path", config.model.path)
        taught = tuple(
            at_hand(f"learner.teachers.{i}.path", teacher.path) for i, teacher in enumerate(config.learner.teachers)
        )
    except InputError:
        return []  # not here, or not of a known shape: the service that loads it says what is wrong
    machine = this_machine(config)
    if config.device == "cuda" and machine.gpu_bytes is None:
        return []
    found = plan(Training(config, shape, taught), machine)
    for name in (RANK_0, HOST):
        if (place := found.place(name)) is not None and place.capacity_bytes is not None:
            _refuse(found, place)
    return [
        f"{place.name} needs {place.peak_bytes / GIB:.1f} GiB by the plan ({place.fullest}), and there are "
        f"{(place.capacity_bytes or 0) / GIB:.1f}; `ratchet plan` says what takes them and what to change"
        for place in found.places
        if place.fits is False
    ]


def _refuse(found: Plan, place: Place) -> None:
    certain = sum(part.size_bytes for part in place.parts if not part.phases and not part.estimated)
    capacity = place.capacity_bytes or 0
    if certain > capacity:
        run = found.training.run
        raise InputError(
            f"model.path = {run.model.path}: {place.name} would hold {certain / GIB:.1f} GiB at all times, and there are "
            f"{capacity / GIB:.1f} (learner.ranks = {run.learner.ranks}, learner.zero_stage = {run.learner.zero_stage}); "
            "`ratchet plan` says what takes them and what to change"
        )
