"""From environment.name to something that makes an environment for each conversation."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from rollout.environments.environment import Environment
from services.config.environment import EnvironmentConfig
from services.environments import location_of
from services.errors import InputError

METHODS = ("reset", "step", "close")


def environment_maker(settings: EnvironmentConfig) -> Callable[[], Environment]:
    """Returns a function that makes an environment. Raises InputError, naming the setting, where none can be made."""
    made = _class_of(settings.name)
    try:
        inspect.signature(made).bind(**settings.options)
    except TypeError as fault:
        known = [name for name in inspect.signature(made).parameters if name not in ("args", "kwargs")]
        raise InputError(
            f'environment.options: "{settings.name}" does not take {sorted(settings.options)}: {fault}; it knows '
            f"{', '.join(known) or 'no options'}"
        ) from None
    try:
        made(**settings.options)
    except Exception as fault:  # written by others
        raise InputError(
            f'environment.options = {settings.options}: "{settings.name}" refuses them: {type(fault).__name__}: {fault}'
        ) from fault

    def make() -> Environment:
        environment: Environment = made(**settings.options)
        return environment

    return make


def _class_of(name: str) -> Any:
    location = location_of(name)
    module, _, attribute = location.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except Exception as fault:  # whatever its import raises
        raise InputError(
            f'environment.name = "{name}": {location} cannot be imported: {type(fault).__name__}: {fault}'
        ) from fault
    missing = [method for method in METHODS if not inspect.iscoroutinefunction(getattr(made, method, None))]
    if missing:
        raise InputError(
            f'environment.name = "{name}": {location} has no method `async def {missing[0]}`; docs/environments.md shows them'
        )
    return made
