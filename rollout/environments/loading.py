"""From environment.name to something that makes an environment for each conversation."""

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from rollout.environments.environment import Environment
from rollout.environments.tools.toolbox import Toolbox
from services.config.load import explained
from services.config.run import RunConfig
from services.environments import location_of
from services.errors import InputError
from services.verifier_access import verifier_client

METHODS = ("reset", "step", "close")


def environment_maker(config: RunConfig, services_folder: Path | None = None) -> Callable[[], Environment]:
    """Returns a function that makes an environment. Raises InputError, naming the setting, where none can be made.

    services_folder: where the services of this machine announce their addresses: tools may ask the run's verifier.
    """
    settings = config.environment
    assert settings is not None
    made = _class_of(settings.name)
    takes = inspect.signature(made).parameters
    given: dict[str, Any] = dict(settings.options)
    if "tools" in takes and takes["tools"].default is inspect.Parameter.empty and not settings.tools:
        raise InputError(
            f'environment.name = "{settings.name}" needs tools: add [[environment.tools]], each with a type'
        )
    if settings.tools:
        if "tools" not in takes:
            raise InputError(
                f'environment.tools: environment.name = "{settings.name}" takes no tools; leave them out, or name "tools"'
            )
        given["tools"] = Toolbox(settings, partial(verifier_client, config.verifier, services_folder))
    try:
        inspect.signature(made).bind(**given)
    except TypeError as fault:
        known = [name for name in takes if name not in ("args", "kwargs", "tools")]
        raise InputError(
            f'environment.options: "{settings.name}" does not take {sorted(settings.options)}: {fault}; it knows '
            f"{', '.join(known) or 'no options'}"
        ) from None
    _check_types(made, settings.options)
    try:
        made(**given)
    except InputError:
        raise
    except Exception as fault:  # written by others
        kind = "" if isinstance(fault, ValueError) and str(fault) else f"{type(fault).__name__}: "
        raise InputError(f'environment.options: "{settings.name}" refuses them: {kind}{fault}') from fault

    def make() -> Environment:
        environment: Environment = made(**given)
        return environment

    return make


def _check_types(made: Any, options: Mapping[str, Any]) -> None:
    """Raises InputError for an option that is not of the type that the environment's argument has, where it says one."""
    try:
        types = get_type_hints(made.__init__)
    except Exception:  # a name that is there for type checkers alone
        return
    for name in options.keys() & types.keys():
        try:
            # As JSON, in which a list is a list whatever the argument's type, and a number is never a text.
            TypeAdapter(types[name]).validate_json(json.dumps(options[name]), strict=True)
        except ValidationError as faults:
            first = faults.errors()[0]
            place = ".".join(map(str, ("environment.options", name, *first["loc"])))
            raise InputError(explained(place, first)) from None
        except (PydanticUserError, TypeError):  # a type that pydantic does not know, or a date
            continue


def _class_of(name: str) -> Any:
    location = location_of(name)
    module, _, attribute = location.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as fault:  # whatever its import raises
        raise InputError(
            f'environment.name = "{name}": {location} cannot be imported: {type(fault).__name__}: {fault}'
        ) from fault
    missing = [method for method in METHODS if not inspect.iscoroutinefunction(getattr(made, method, None))]
    if missing:
        raise InputError(
            f'environment.name = "{name}": {location} has no method `async def {missing[0]}`; docs/environments.md shows them'
        )
    return made
