"""The functions of each objective, by the `type` of [learner.objective].

services/config/objectives/registry.py knows which objectives exist.
"""

import importlib
from collections.abc import Iterator, Mapping
from functools import cache

from learner.objective.base import Objective
from services.config.objectives.registry import OURS, known_objectives, settings_class
from services.errors import InputError


class _ByType(Mapping[str, Objective]):
    """Imports an objective's functions when they are first asked for."""

    def __getitem__(self, name: str) -> Objective:
        """Raises InputError when there is no such objective, or when the package that brings it is not usable."""
        return _imported(name)

    def __iter__(self) -> Iterator[str]:
        return iter(known_objectives())

    def __len__(self) -> int:
        return len(known_objectives())


OBJECTIVES: Mapping[str, Objective] = _ByType()
"""Ratchet's own objectives and those of installed packages."""


@cache
def _imported(name: str) -> Objective:
    settings = settings_class(name)
    module, _, attribute = (settings.implementation or f"learner.objective.{name}:OBJECTIVE").partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as fault:
        if name in OURS:
            raise
        # Another author's module may raise anything.
        raise InputError(
            f'the objective "{name}" has its functions at {module}:{attribute} ({settings.__module__}.{settings.__name__}), '
            f"which cannot be imported: {type(fault).__name__}: {fault}"
        ) from fault
    if not isinstance(found, Objective):
        raise InputError(f'the objective "{name}": {module}:{attribute} is not a learner.objective.base.Objective')
    return found
