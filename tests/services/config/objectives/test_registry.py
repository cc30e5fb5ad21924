"""Which objectives there are: a file each, and what installed packages bring."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest

from services.config.learner import LearnerConfig
from services.config.objectives import registry
from services.config.objectives.base import PLAIN, ObjectiveSettings
from services.config.objectives.registry import OURS, SHARED, known_objectives, settings_class
from services.errors import InputError

ROOT = Path(__file__).parents[4]


class Halved(ObjectiveSettings):
    """What a package might bring."""

    implementation = "halved.functions:OBJECTIVE"
    published = PLAIN
    type: Literal["halved"] = "halved"
    factor: float = 0.5


class Unplaced(ObjectiveSettings):
    type: Literal["unplaced"] = "unplaced"


def entry(name: str, attribute: str, module: str = __name__) -> EntryPoint:
    return EntryPoint(name, f"{module}:{attribute}", registry.ENTRY_POINTS)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points of packages; a test adds its own before it asks."""
    points = [entry("halved", "Halved")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.ENTRY_POINTS else [])
    registry._packaged.cache_clear()
    yield points
    registry._packaged.cache_clear()


def learner(**objective: object) -> LearnerConfig:
    return LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1, "objective": objective})


def test_settings_and_functions_are_files_of_the_same_names() -> None:
    settings = {path.stem for path in (ROOT / "services" / "config" / "objectives").glob("*.py")}
    functions = {
        path.stem
        for path in (ROOT / "learner" / "objective").glob("*.py")
        if "\nOBJECTIVE = " in path.read_text(encoding="utf-8")
    }
    assert settings - {*SHARED, "__init__"} == functions == set(OURS)


def test_every_setting_of_every_objective_has_a_sentence() -> None:
    for name, settings in OURS.items():
        text = (ROOT / "services" / "config" / "objectives" / f"{name}.py").read_text(encoding="utf-8")
        own = [field for field in settings.__annotations__ if field in settings.model_fields and field != "type"]
        for field in own:
            line = next(at for at, line in enumerate(text.splitlines()) if line.startswith(f"    {field}: "))
            assert text.splitlines()[line + 1].startswith('    """'), (name, field)
        assert settings.__doc__, name


def test_a_package_s_objective_is_validated_like_ours(installed: list[EntryPoint]) -> None:
    config = learner(type="halved", factor=0.25)
    assert isinstance(config.objective, Halved)
    assert (config.objective.factor, config.ess.enabled) == (0.25, False)
    assert config.model_dump(mode="json")["objective"] == {"type": "halved", "factor": 0.25}
    with pytest.raises(ValueError, match=r"objective\.halved\.factr"):
        learner(type="halved", factr=0.25)
    assert "halved" in known_objectives()


def test_settings_that_are_made_already_are_taken_as_they_are(installed: list[EntryPoint]) -> None:
    assert LearnerConfig(steps=1, groups_per_step=1, objective=Halved(factor=0.1)).objective == Halved(factor=0.1)


def test_a_package_is_not_imported_before_a_run_asks_for_it(installed: list[EntryPoint]) -> None:
    installed.append(entry("elsewhere", "Settings", module="colorsys"))
    sys.modules.pop("colorsys", None)
    assert "elsewhere" in known_objectives()
    learner(type="grpo")
    learner(type="halved")
    assert "colorsys" not in sys.modules


@pytest.mark.parametrize(
    ("point", "complaint"),
    [
        (
            entry("absent", "Settings", module="no_such_module"),
            "cannot be imported: ModuleNotFoundError: No module named",
        ),
        (entry("absent", "NoSuchClass"), "cannot be imported: AttributeError"),
        (entry("absent", "Path"), "is not a subclass of services.config.objectives.base.ObjectiveSettings"),
        (entry("absent", "Halved"), 'must have `type: Literal["absent"] = "absent"`'),
        (entry("unplaced", "Unplaced"), 'add `implementation = "module:OBJECTIVE"`'),
        (entry("halved", "Other"), 'the objective "halved" is claimed by a package'),
        (entry("grpo", "Other"), "claimed by Ratchet (services.config.objectives.grpo) and by a package"),
    ],
)
def test_a_package_that_cannot_be_used_is_named_and_only_where_it_is_asked_for(
    installed: list[EntryPoint], point: EntryPoint, complaint: str
) -> None:
    installed.append(point)
    with pytest.raises(InputError, match=re.escape(complaint)):
        settings_class(point.name)
    with pytest.raises(ValueError, match=re.escape(complaint)):
        learner(type=point.name)
    assert learner(type="cispo").objective.type == "cispo"


def test_the_same_entry_point_twice_is_one(installed: list[EntryPoint]) -> None:
    """As when a package is on the path twice."""
    installed.append(entry("halved", "Halved"))
    assert settings_class("halved") is Halved


def test_an_unknown_name_gets_the_list_of_those_there_are(installed: list[EntryPoint]) -> None:
    with pytest.raises(InputError, match=r'called "halve"; did you mean "halved"\? There are acpo, .*, halved, .*sapo'):
        settings_class("halve")
    with pytest.raises(InputError, match='called "zzz"; there are acpo, '):
        settings_class("zzz")
