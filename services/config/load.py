"""From a TOML file and overrides to a RunConfig, or to one error that names every fault and what to do."""

import difflib
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from services.config.base import Strict
from services.config.run import RunConfig
from services.config.verifier import VerifierConfig
from services.errors import InputError


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """overrides: `section.key=value` with a TOML value, or a bare word for a string. Raises InputError."""
    return parse(_overridden(_read(path), overrides), folder=path.parent, origin=str(path))


def load_verifier(path: Path | None, overrides: Sequence[str] = ()) -> VerifierConfig:
    """Of a scoring service that belongs to no run. path: a file that has nothing but [verifier]; None: overrides only.
    Raises InputError."""
    settings = _overridden({} if path is None else _read(path), overrides)
    try:
        alone = _VerifierAlone.model_validate(settings, context={"folder": Path.cwd() if path is None else path.parent})
    except ValidationError as faults:
        origin = "the command line" if path is None else str(path)
        raise _invalid(f"{origin} has no valid settings of a verifier:", faults) from None
    return alone.verifier


class _VerifierAlone(Strict):
    verifier: VerifierConfig = VerifierConfig()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no configuration at {path}; give the path of a TOML file") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give the path of a TOML file") from None
    except UnicodeDecodeError as fault:
        raise InputError(
            f"{path} is not a text file: byte {fault.start} is not UTF-8; give the path of a TOML file"
        ) from None
    except OSError as fault:
        raise InputError(
            f"cannot read {path}: {fault.strerror}; give the path of a TOML file that you can read"
        ) from None
    except tomllib.TOMLDecodeError as fault:
        raise InputError(f"{path} is not valid TOML: {fault}") from fault


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
    """`render` for other eyes: without the password of redis.url."""
    if config.redis.url is None:
        return render(config)
    redis = config.redis.model_copy(update={"url": _masked(config.redis.url)})
    return render(config.model_copy(update={"redis": redis}))


def holds_password(config: RunConfig) -> bool:
    return render_masked(config) != render(config)


def _masked(text: str) -> str:
    """Without the passwords of the URLs in it: before the last @, as one may hold an @ of its own, or an option."""
    return re.sub(r"([?&]password=)[^&]+", r"\1***", re.sub(r"(://[^:/@]*:).*@", r"\1***@", text))


def _invalid(what: str, faults: ValidationError) -> InputError:
    return InputError("\n".join([what, *map(_explain, faults.errors())]))


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
    place = ".".join(str(part) for part in fault["loc"]) or "the run as a whole"
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
    return f"  {place} = {_masked(repr(fault['input']))}: {message[0].lower()}{message[1:]}"


def _renamed(place: Sequence[int | str]) -> str | None:
    """The present name of a key that was renamed, or None."""
    for model in _sections(place[:-1]):
        if issubclass(model, Strict) and (name := model.renamed.get(str(place[-1]))):
            return name
    return None


def _known_keys(place: Iterable[int | str]) -> list[str]:
    return [key for model in _sections(place) for key in model.model_fields]


def _sections(place: Iterable[int | str]) -> list[type[BaseModel]]:
    """The settings classes that may stand at this place; several where it is a union."""
    models: list[type[BaseModel]] = [RunConfig]
    for part in place:
        inside = [
            m
            for model in models
            if part in model.model_fields
            for m in _models(model.model_fields[str(part)].annotation)
        ]
        models = inside or models  # a union's tag is a part of the place, but no field
    return models


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)
