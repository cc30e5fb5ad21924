"""Which objectives there are: the files of this folder, and what installed packages bring.

Ratchet's own are registered by being here: NAME.py holds the settings class whose `type` is NAME. A package names its settings
class in the entry point group `ratchet.objectives` (docs/writing-an-objective.md), and is imported when a run asks for it.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache, reduce
from importlib.metadata import EntryPoint, entry_points
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, SerializeAsAny, TypeAdapter, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

from services.config import objectives
from services.config.objectives.base import ObjectiveSettings
from services.errors import InputError

ENTRY_POINTS = "ratchet.objectives"
SHARED = ("base", "registry")
"""Files of this folder that are not an objective."""


def _settings_in(name: str) -> type[ObjectiveSettings]:
    module = importlib.import_module(f"{objectives.__name__}.{name}")
    for found in vars(module).values():
        if isinstance(found, type) and issubclass(found, ObjectiveSettings) and _type_of(found) == name:
            return found
    raise TypeError(f'{module.__file__} has no ObjectiveSettings with type: Literal["{name}"] = "{name}"')


def _type_of(settings: type[ObjectiveSettings]) -> object:
    return settings.model_fields["type"].default


OURS: Mapping[str, type[ObjectiveSettings]] = {
    module.name: _settings_in(module.name)
    for module in pkgutil.iter_modules(objectives.__path__)
    if module.name not in SHARED
}
"""The objectives of this folder: type -> settings class."""


def known_objectives() -> list[str]:
    """Types that a run file may name: Ratchet's own and those of installed packages, which are not imported for this."""
    return sorted({*OURS, *_packaged()})


def settings_class(name: str) -> type[ObjectiveSettings]:
    """The settings class whose `type` is this name.

    Raises InputError if no class or more than one has the name, or if the package that provides it cannot be used.
    """
    claims = _packaged().get(name, [])
    owners = [f"Ratchet ({OURS[name].__module__})"] if name in OURS else []
    owners += [f"{_package(claim)} ({claim.value})" for claim in claims]
    if not owners:
        near = difflib.get_close_matches(name, known_objectives(), n=1)
        hint = f'did you mean "{near[0]}"? There are' if near else "there are"
        raise InputError(f'no objective is called "{name}"; {hint} {", ".join(known_objectives())}')
    if len(owners) > 1:
        raise InputError(
            f'the objective "{name}" is claimed by {" and by ".join(owners)}; uninstall one of them, or have its entry '
            f"point in {ENTRY_POINTS} renamed"
        )
    return OURS[name] if name in OURS else _imported(claims[0])


def _imported(claim: EntryPoint) -> type[ObjectiveSettings]:
    who = f'the objective "{claim.name}" comes from {_package(claim)} ({claim.value}), which'
    try:
        found = claim.load()
    except Exception as fault:  # another author's module may raise anything
        raise InputError(f"{who} cannot be imported: {type(fault).__name__}: {fault}. Fix or reinstall it") from fault
    if not (isinstance(found, type) and issubclass(found, ObjectiveSettings)):
        raise InputError(f"{who} is not a subclass of services.config.objectives.base.ObjectiveSettings")
    if _type_of(found) != claim.name:
        raise InputError(f'{who} must have `type: Literal["{claim.name}"] = "{claim.name}"`')
    if found.implementation is None:
        raise InputError(f'{who} does not say where its functions are; add `implementation = "module:OBJECTIVE"`')
    return found


@cache
def _packaged() -> Mapping[str, list[EntryPoint]]:
    """Entry points by name; the same one may be listed twice where a package is on the path twice."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, {})[point.value] = point
    return {name: list(points.values()) for name, points in found.items()}


def _package(claim: EntryPoint) -> str:
    return claim.dist.name if claim.dist else "a package"


def _choose(value: Any, ours: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Leave Ratchet's own to their union; validate a package's by its class, so that both report faults alike."""
    if isinstance(value, ObjectiveSettings):
        return value
    name = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(name, str):
        return ours(value)
    try:
        chosen = settings_class(name)
    except InputError as fault:
        raise ValueError(str(fault)) from fault
    if name in OURS:
        return ours(value)
    union: Any = _union(*OURS.values(), chosen)
    return TypeAdapter(Annotated[union, Field(discriminator="type")]).validate_python(value, context=info.context)


def _union(*members: type[ObjectiveSettings]) -> Any:
    return reduce(or_, members)


if TYPE_CHECKING:
    ObjectiveConfig = ObjectiveSettings
else:
    ObjectiveConfig = Annotated[
        SerializeAsAny[_union(*OURS.values())], Field(discriminator="type"), WrapValidator(_choose)
    ]
"""The field learner.objective: one of Ratchet's own by its type, or what a package brings."""
