"""The functions of every objective, by its type."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from learner.objective import OBJECTIVES, Objective
from learner.objective import registry as functions
from learner.objective.reinforce import reinforce
from services.config.objectives import registry as settings
from services.config.objectives.base import ObjectiveSettings
from services.config.objectives.registry import OURS
from services.errors import InputError


class Elsewhere(ObjectiveSettings):
    """What a package might bring."""

    implementation = "functions_elsewhere:OBJECTIVE"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of a package's functions; a test fills it."""
    module = ModuleType("functions_elsewhere")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(functions, "settings_class", lambda name: Elsewhere)
    functions._imported.cache_clear()
    yield module
    functions._imported.cache_clear()


@pytest.mark.parametrize("name", OURS)
def test_every_objective_has_its_functions(name: str) -> None:
    assert isinstance(OBJECTIVES[name], Objective)


def test_the_registry_lists_what_the_settings_know() -> None:
    assert set(OBJECTIVES) == set(settings.known_objectives())
    assert len(OBJECTIVES) == len(set(OBJECTIVES))


def test_a_package_says_where_its_functions_are(elsewhere: ModuleType) -> None:
    elsewhere.OBJECTIVE = Objective(reinforce)  # type: ignore[attr-defined]
    assert functions._imported("elsewhere") is elsewhere.OBJECTIVE


def test_functions_that_cannot_be_imported_are_named(elsewhere: ModuleType) -> None:
    with pytest.raises(InputError, match=r"functions_elsewhere:OBJECTIVE .*cannot be imported: AttributeError"):
        functions._imported("elsewhere")
    elsewhere.OBJECTIVE = print  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"functions_elsewhere:OBJECTIVE is not a learner.objective.base.Objective"):
        functions._imported("elsewhere")
