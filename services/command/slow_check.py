"""The part of the check before a run that imports transformers: the model's files, the memory, and every row of the datasets.

`ratchet up` has the learner's process do it, which imports transformers anyway and has nothing to do yet (early_start.py); every
other command does it itself.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from services.command.check_memory import check_memory
from services.command.check_rows import check_rows, taken
from services.command.environment_check import check_environment
from services.config import RunConfig
from services.datasets.dataset import Problem
from services.errors import InputError
from services.models.adapted import adapted_layers, check_same_adapters
from services.models.folder import read_model_folder
from services.run import made_of
from services.run.checkpoint_files import newest_whole, read_object
from services.run.folder import RunFolder


class Looked(msgspec.Struct, frozen=True):
    """What was found."""

    fault: str | None = None
    """What is wrong; None: nothing."""
    warnings: list[str] = msgspec.field(default_factory=list)
    ungradable: dict[str, list[int]] = msgspec.field(default_factory=dict)
    """Section of prompts -> the rows whose references no grader can judge; without those that have none."""


Look = Callable[[RunConfig], Looked]


def look(config: RunConfig) -> Looked:
    """Look at the files. What takes longer comes last, and is left for the next time when there is something to mend already."""
    warnings: list[str] = []
    try:
        _check_models(config)
        warnings += check_memory(config)
        found, said = check_rows(config)
        training = [problem for one in found if one.is_trained_on for problem in taken(config, one)]
        held_out = [problem for one in found if not one.is_trained_on for problem in one.problems]
        check_checkpoint(config, training, held_out if config.evaluation else None)
        warnings += said + check_environment(config, [training[0], *training[1:][-1:]])
    except InputError as fault:
        return Looked(str(fault), warnings)
    return Looked(None, warnings, {one.section: sorted(one.ungradable) for one in found if one.ungradable})


def answer(config: RunConfig) -> bytes:
    """What `look` has found, for another process: `answered` reads it."""
    return msgspec.json.encode(look(config))


def answered(said: bytes) -> Looked | None:
    """What the process has found that said this; None where it ended before it had found out."""
    return msgspec.json.decode(said, type=Looked) if said else None


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
