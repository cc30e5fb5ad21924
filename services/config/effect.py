"""Settings that have an effect only under another one: each says so beside itself, and those that are given in vain are found.

    tau: Annotated[float, OnlyWith(".baseline", "log_mean_exp")] = 1.0

Several such marks on one setting are alternatives: any of them will do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from services.config.base import Strict

if TYPE_CHECKING:
    from services.config.run import RunConfig

_ABSENT = object()


class OnlyWith:
    """The setting acts while another one has one of these values; without values: while it is given and not empty."""

    def __init__(self, place: str, *values: object) -> None:
        """place: as it is typed, from the run's root (`learner.mini_batches`); with a dot in front, in the same section
        (`.enabled`)."""
        self.place = place
        self.values = values

    def admits(self, value: Any) -> bool:
        """Whether the setting acts when the other one has this value."""
        return value in self.values if self.values else bool(value)

    def said(self, place: str) -> str:
        """The condition in words. place: the other setting's, from the root."""
        if not self.values:
            return f"with {place} set"
        return f"with {place} = {' or '.join(map(_toml, self.values))}"


class OnlyAbove(OnlyWith):
    """The setting acts while another one, a number, is above a bound."""

    def __init__(self, place: str, bound: float) -> None:
        super().__init__(place, bound)
        self.bound = bound

    def admits(self, value: Any) -> bool:
        return bool(value > self.bound)

    def said(self, place: str) -> str:
        return f"with {place} above {self.bound:g}"


SEVERAL_STEPS = OnlyAbove("learner.mini_batches", 1)
"""For what bounds the ratio current/proximal, which is 1 in the first optimizer step of a batch."""


@dataclass(frozen=True)
class _Setting:
    """A setting that carries a mark, where it stands."""

    place: str
    value: Any
    usual: Any
    """What it is when nobody gives it."""
    section: Strict
    marks: tuple[OnlyWith, ...]


def ineffective(config: "RunConfig") -> list[str]:
    """Warnings of settings that differ from their default and do nothing, because another setting switches them off."""
    return [
        warning
        for setting in _marked(config, "", {})
        if setting.value != setting.usual and not any(_holds(config, setting, mark) for mark in setting.marks)
        for warning in _warnings(setting)
    ]


def marks_of(section: type[Strict], name: str) -> tuple[OnlyWith, ...]:
    """The marks of a setting; empty: it always acts."""
    return tuple(mark for mark in section.model_fields[name].metadata if isinstance(mark, OnlyWith))


def _marked(section: Strict, place: str, published: Mapping[str, Any]) -> Iterator[_Setting]:
    """published: what an objective sets in this section where the run file says nothing."""
    for name, field in type(section).model_fields.items():
        value, at = getattr(section, name), f"{place}{name}"
        usual = published.get(name, field.get_default())
        if marks := marks_of(type(section), name):
            yield _Setting(at, value, _completed(usual, value), section, marks)
        if isinstance(value, Strict):
            inner = usual if isinstance(usual, Mapping) else _as_published(usual, value)
            if at == "learner":
                inner = value.objective.published  # type: ignore[attr-defined]
            yield from _marked(value, f"{at}.", inner)


def _completed(usual: Any, value: Any) -> Any:
    """A published section, which is a mapping, as the section that it makes, if that is of the value's kind."""
    if not isinstance(usual, Mapping) or not isinstance(value, Strict):
        return usual
    kind = getattr(value, "type", None)
    return type(value).model_validate(usual) if usual.get("type", kind) == kind else usual


def _as_published(usual: Any, value: Strict) -> Mapping[str, Any]:
    """What a default section says of its keys, if the section is of that kind."""
    return dict(usual) if type(usual) is type(value) else {}


def _holds(config: "RunConfig", setting: _Setting, mark: OnlyWith) -> bool:
    """Whether a condition is met. One about what is not there, such as a key that other objectives have, is."""
    value: Any = setting.section if mark.place.startswith(".") else config
    for key in mark.place.strip(".").split("."):
        value = getattr(value, key, _ABSENT)
    return value is _ABSENT or mark.admits(value)


def _warnings(setting: _Setting) -> Iterator[str]:
    section = setting.place.rpartition(".")[0]
    conditions = " or ".join(
        mark.said(f"{section}{mark.place}" if mark.place.startswith(".") else mark.place) for mark in setting.marks
    )
    for place, value in _departures(setting.place, setting.value, setting.usual):
        yield f"{place} = {_toml(value)} has no effect: it acts only {conditions}; leave it out if that is meant"


def _departures(place: str, value: Any, usual: Any) -> Iterator[tuple[str, Any]]:
    """The keys, with their values, in which a section differs from what it usually is; a value that is not a section itself."""
    if not isinstance(value, Strict):
        yield place, value
        return
    for name, field in type(value).model_fields.items():
        known = getattr(usual, name) if type(usual) is type(value) else field.get_default()
        one = getattr(value, name)
        if name == "type" and type(usual) is not type(value):
            yield f"{place}.{name}", one
        elif one != known:
            yield from _departures(f"{place}.{name}", one, known)


def _toml(value: object) -> str:
    value = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
    return tomli_w.dumps({"key": value}).removeprefix("key = ").strip()
