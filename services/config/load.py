"""From a TOML file and overrides to a RunConfig, or to one error that names every fault and what to do."""

import contextlib
import difflib
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from services.config.base import Strict
from services.config.endpoints import ENDPOINT_PATTERN
from services.config.objectives.base import ObjectiveSettings
from services.config.objectives.registry import OURS, settings_class
from services.config.prompts import SOURCE_NAME
from services.config.run import NAME_PATTERN, RunConfig
from services.config.verifier import VerifierConfig
from services.errors import InputError


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """overrides: `section.key=value` with a TOML value, or a bare word for a string. Raises InputError."""
    return parse(_overridden(_read(path), overrides), folder=path.parent, origin=str(path))


def load_verifier(path: Path | None, overrides: Sequence[str] = ()) -> VerifierConfig:
    """Settings of a scoring service that does not belong to a run. Raises InputError.

    path: a file that holds nothing but [verifier]; None: the overrides alone.
    """
    settings = _overridden({} if path is None else _read(path), overrides)
    try:
        alone = _VerifierAlone.model_validate(settings, context={"folder": Path.cwd() if path is None else path.parent})
    except ValidationError as faults:
        origin = "the command line" if path is None else str(path)
        raise _invalid(f"{origin} has no valid verifier settings:", faults) from None
    return alone.verifier


class _VerifierAlone(Strict):
    verifier: VerifierConfig = VerifierConfig()


EXTENDS = "extends"
"""Key of a run file that names the file it is laid over."""


def _read(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a file, laid over those of the file that it extends, if any.

    extended_by: the files that led here, outermost first. Raises InputError, which names them all.
    """
    chain = " -> ".join(str(one) for one in (*extended_by, path))
    if path.resolve() in [one.resolve() for one in extended_by]:
        raise InputError(f"run files extend each other in a circle: {chain}; take `{EXTENDS}` out of one of them")
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if extended_by:
            raise InputError(
                f"no configuration at {path}, which {extended_by[-1]} extends ({chain}); `{EXTENDS}` is a path relative to "
                "the file that says it"
            ) from None
        raise InputError(f"no configuration at {path}; give the path of a TOML file") from None
    except IsADirectoryError:
        raise InputError(f"{chain} is a folder; give the path of a TOML file") from None
    except UnicodeDecodeError as fault:
        raise InputError(
            f"{chain} is not a text file: byte {fault.start} is not UTF-8; give the path of a TOML file"
        ) from None
    except OSError as fault:
        raise InputError(
            f"cannot read {chain}: {fault.strerror}; give the path of a TOML file that you can read"
        ) from None
    except tomllib.TOMLDecodeError as fault:
        raise InputError(f"{chain} is not valid TOML: {fault}") from fault
    base = settings.pop(EXTENDS, None)
    if base is None:
        return settings
    if not isinstance(base, str):
        raise InputError(f"{path}: {EXTENDS} = {base!r} is not the path of one TOML file")
    base_path = path.parent / Path(base).expanduser()
    below = _read(base_path, (*extended_by, path))
    return _laid_over(_located(below, base_path.parent.resolve()), settings)


def _laid_over(base: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; any other value, lists included, replaces that of the base.

    A table that names its `type` replaces one of another type whole: their keys do not belong together.
    """
    merged = dict(base)
    for key, value in settings.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and value.get("type") in (None, below.get("type")):
            merged[key] = _laid_over(below, value)
        else:
            merged[key] = value
    return merged


def _located(value: Any, folder: Path, place: tuple[str, ...] = ()) -> Any:
    """What stands at `place` of a file in `folder`, with its relative paths made absolute: another file will hold it."""
    if isinstance(value, dict):
        tag = (value["type"],) if isinstance(value.get("type"), str) else ()
        return {key: _located(one, folder, (*place, *tag, key)) for key, one in value.items()}
    if isinstance(value, list):
        return [_located(one, folder, place) for one in value]
    fields = [model.model_fields.get(place[-1]) for model in _sections(place[:-1])] if isinstance(value, str) else []
    return next((_read_from(field, value, folder) for field in fields if field is not None), value)


def _read_from(field: FieldInfo, text: str, folder: Path) -> str:
    """`text` as the field's own type reads it in a file of this folder; what is wrong with it, validation will say."""
    own_type: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    try:
        read = TypeAdapter[object](own_type).validate_python(text, context={"folder": folder})
    except ValidationError:
        return text
    return str(read) if isinstance(read, str | Path) else text


def parse(settings: dict[str, Any], *, folder: Path, origin: str) -> RunConfig:
    """folder: what relative paths are relative to; origin: the name used in errors."""
    try:
        config = RunConfig.model_validate(settings, context={"folder": folder})
    except ValidationError as faults:
        raise _invalid(f"{origin} is not a valid run:", faults) from None
    return config.model_copy(update={"runs_folder": config.runs_folder.resolve()})


def render(config: RunConfig) -> str:
    """The resolved settings as TOML that `load` reads again, passwords included."""
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def render_masked(config: RunConfig) -> str:
    """`render` without the passwords of redis.url and tracking.mlflow, for output that others may see."""
    return render(_without_passwords(config))


def masked_settings(config: RunConfig) -> dict[str, Any]:
    """The resolved settings as `render_masked` has them."""
    return _without_passwords(config).model_dump(mode="json", exclude_none=True)


def _without_passwords(config: RunConfig) -> RunConfig:
    redis, tracking = config.redis, config.tracking
    if redis.url is not None:
        redis = redis.model_copy(update={"url": _masked(redis.url)})
    if tracking.mlflow is not None:
        tracking = tracking.model_copy(update={"mlflow": _masked(tracking.mlflow)})
    return config.model_copy(update={"redis": redis, "tracking": tracking})


def holds_password(config: RunConfig) -> bool:
    """Whether a setting has a password in it."""
    return render_masked(config) != render(config)


def _masked(text: str) -> str:
    """`text` without the passwords of the URLs in it. A password may hold an @, and may be an option of the URL."""
    return re.sub(r"([?&]password=)[^&]+", r"\1***", re.sub(r"(://[^:/@]*:).*@", r"\1***@", text))


def _invalid(what: str, faults: ValidationError) -> InputError:
    # Once each: where a value may be one of two things, both say why it is not.
    return InputError("\n".join([what, *dict.fromkeys(map(_explain, _first_of_each(faults.errors())))]))


def _first_of_each(faults: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """The faults, without a second one about the same value."""
    seen = set()
    for fault in faults:
        place = typed(fault["loc"]), fault["type"] == "extra_forbidden"
        if place not in seen:
            yield fault
        seen.add(place)


def _overridden(settings: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        _override(settings, override)
    return settings


def _override(settings: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise InputError(
            f'"--set {override}" is not of the form section.key=value; write it like --set learner.steps=100'
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    section = settings
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise InputError(f'"--set {override}": {key} is a value, not a section')
    section[keys[-1]] = value


def _explain(fault: ErrorDetails) -> str:
    place = typed(fault["loc"]) or "the run as a whole"
    if fault["type"] == "extra_forbidden":
        if renamed := _renamed(fault["loc"]):
            return f'  {place}: is now called "{renamed}"; rename it'
        near = difflib.get_close_matches(str(fault["loc"][-1]), _known_keys(fault["loc"][:-1]), n=1)
        return f"  {place}: no such key" + (
            f'; did you mean "{near[0]}"?' if near else "; remove it or check its section"
        )
    if fault["type"] == "missing":
        return f"  {place}: missing; add it"
    if fault["type"] == "union_tag_not_found":
        return f"  {place}.type: missing; say which kind it is"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"  {place}: {message}"
    return f"  {explained(place, fault)}"


def explained(place: str, fault: ErrorDetails) -> str:
    """What is wrong with the value at this place, in the words of a run file."""
    message = _in_words(fault) or fault["msg"]
    return f"{place} = {_masked(repr(fault['input']))}: {message[0].lower()}{message[1:]}"


PATTERNS = {
    NAME_PATTERN: "use up to 64 letters, digits, dots, dashes and underscores, with a letter or a digit first",
    SOURCE_NAME: "use up to 40 letters, digits, dots, dashes and underscores, with a letter or a digit first",
    ENDPOINT_PATTERN: "use up to 40 letters, digits, dashes and underscores",
}


IN_WORDS = {
    "string_too_short": "must not be empty",
    "model_type": "is a section: write its keys under [it], or as {key = value}",
    "model_attributes_type": "is a section: write its keys under [it], or as {key = value}",
    "dict_type": "is a section: write its keys under [it], or as {key = value}",
    "tuple_type": "must be a list, as in [1, 2]",
    "list_type": 'must be a list, as in [1, 2] or ["a", "b"]',
    "is_instance_of": "must be a path, in quotes",
    "path_type": "must be a path, in quotes",
    "bool_type": "must be true or false",
}
"""What pydantic says in terms of its own, in those of a run file."""


def _in_words(fault: ErrorDetails) -> str | None:
    """The fault in terms of a run file; None where pydantic's words will do."""
    if fault["type"] == "string_pattern_mismatch":
        return PATTERNS.get(fault["ctx"]["pattern"])
    if fault["type"] == "union_tag_invalid":
        return f"its type {fault['ctx']['tag']!r} is none of {fault['ctx']['expected_tags']}"
    return IN_WORDS.get(fault["type"])


def typed(loc: Sequence[int | str]) -> str:
    """A place as the user types it: without what pydantic adds for the member of a union."""
    models: list[type[BaseModel]] = [RunConfig]
    parts: list[str] = []
    for part in loc:
        inside = [
            m
            for model in models
            if part in model.model_fields
            for m in _models(model.model_fields[str(part)].annotation)
        ]
        is_field = any(part in model.model_fields for model in models)
        member = [] if is_field else _of_type(models, part) or [m for m in models if m.__name__ == part]
        if member:
            models = member
        elif is_field or not (isinstance(part, str) and _is_pydantics(part)):
            parts.append(str(part))
            models = inside if is_field else models
    return ".".join(parts)


def _is_pydantics(part: str) -> bool:
    return part == "[key]" or part.startswith(
        ("literal[", "function-", "tagged-union[", "constrained-", "dict[", "tuple[")
    )


def _renamed(place: Sequence[int | str]) -> str | None:
    """The present name of a key that was renamed, or None."""
    for model in _sections(place[:-1]):
        if issubclass(model, Strict) and (name := model.renamed.get(str(place[-1]))):
            return name
    return None


def _known_keys(place: Iterable[int | str]) -> list[str]:
    return [key for model in _sections(place) for key in model.model_fields]


def _sections(place: Iterable[int | str]) -> list[type[BaseModel]]:
    """The settings classes that may stand at this place; several where it is a union and the place does not say which."""
    models: list[type[BaseModel]] = [RunConfig]
    for part in place:
        inside = [
            m
            for model in models
            if part in model.model_fields
            for m in _models(model.model_fields[str(part)].annotation)
        ]
        models = inside or _of_type(models, part) or models  # else an index, or the key of a mapping
    return models


def _of_type(models: list[type[BaseModel]], tag: int | str) -> list[type[BaseModel]]:
    """The members of a union that have this tag, which is a part of the place but not a field."""
    if tag not in OURS and isinstance(tag, str) and any(issubclass(model, ObjectiveSettings) for model in models):
        with contextlib.suppress(InputError):
            return [settings_class(tag)]
    return [m for m in models if "type" in m.model_fields and m.model_fields["type"].default == tag]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)
