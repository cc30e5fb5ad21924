"""Writes docs/settings.md and docs/metrics.md from the settings classes and the metrics of every room.

    python -m scripts.reference            # or: make reference
    python -m scripts.reference --check    # writes nothing; exit code 1 when a page is out of date

Importing this needs no torch. Writing the metrics does, because a figure of a step declares its metric beside itself.
"""

import ast
import importlib
import inspect
import re
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import tomli_w
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import CollectorRegistry
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from services.config import RunConfig

DOCS = Path(__file__).parent.parent / "docs"
NOTICE = "<!-- Generated from the code by `make reference`; edit the code, not this page. -->\n\n"
METRIC_MODULES = (
    "learner.metrics",
    "rollout.metrics",
    "rollout.conversation.metrics",
    "verifier.metrics",
    "verifier.network.metrics",
    "services.metrics",
    "services.gpu_memory",
)
DECLARED_ELSEWHERE = ("learner.step.report",)
"""Modules that make metrics beside other things; they are shown with the metrics of their room."""
SETTINGS_HEAD = """# Settings

A run is one TOML file. Each table below is one section of it, each row one key. `--set section.key=value` overrides a key
on the command line, `ratchet config RUN.toml` shows what applies, and a wrong or unknown key stops the command with the
place, the value and what to do. Paths are relative to the file that names them. `extends = "base.toml"` at the top lays a
file over another one.

An objective other than OWPO may bring other defaults for `[learner]`, those that it was published with; they are listed
with the objective, and what the run file says takes precedence. An installed package may bring objectives of its own
([writing-an-objective.md](writing-an-objective.md)); they are not listed here.

"""
METRICS_HEAD = """# Metrics

What each service exports on `/metrics`, for Prometheus. Every sample has the label `run`, the name of the run; Prometheus adds
`job` and `instance`. Where a metric has no label for the replica, each replica's own `/metrics` tells them apart. The learner
exports from rank 0 alone, for all ranks. Besides these, `process_start_time_seconds` says when a service was started, and each
replica exports vLLM's `vllm:*`. The [dashboards](dashboards.md) show them; the [runbook](runbook.md) explains the alerts.

Units are part of the names: seconds, tokens, steps, nats, and
ratios between 0 and 1. [Operating](operating.md) says which to look at when.

"""


def settings_page() -> str:
    return NOTICE + SETTINGS_HEAD + "\n".join(_Sections().of("", RunConfig)).rstrip() + "\n"


def metrics_page() -> str:
    return NOTICE + METRICS_HEAD + "\n".join(_metric_tables()).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    pages = {DOCS / "settings.md": settings_page(), DOCS / "metrics.md": metrics_page()}
    outdated = [path for path, page in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != page]
    if arguments == ["--check"]:
        for path in outdated:
            print(f"docs/{path.name} is not what the code says; run `make reference` and commit it", file=sys.stderr)
        return 1 if outdated else 0
    for path in outdated:
        path.write_text(pages[path], encoding="utf-8")
    return 0


@cache
def sentences(settings: type[BaseModel]) -> Mapping[str, str]:
    """Field -> the string under it, inherited fields included."""
    found: dict[str, str] = {}
    for owner in reversed(settings.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, below in zip(body.body, body.body[1:], strict=False):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def all_settings() -> Iterator[type[BaseModel]]:
    """Every settings class that a run file can fill, each once."""
    seen: dict[type[BaseModel], None] = {}
    left: list[type[BaseModel]] = [RunConfig]
    while left:
        settings = left.pop()
        if settings not in seen:
            seen[settings] = None
            left += [model for field in settings.model_fields.values() for model in models_in(field.annotation)]
    yield from seen


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


class _Sections:
    """The page's sections, depth first. A class that was shown before is referred to."""

    def __init__(self) -> None:
        self._shown: dict[type[BaseModel], str] = {}

    def of(self, place: str, settings: type[BaseModel]) -> Iterator[str]:
        """The section at `place` and those inside it."""
        if settings in self._shown:
            yield f"## {_brackets(place)}\n\nThe keys of {_brackets(self._shown[settings])}.\n"
            return
        self._shown[settings] = place
        yield f"## {_brackets(place)}\n\n{_docstring(settings)}\n" if place else "## The run itself\n"
        yield _table(_rows(settings, inline=False))
        for name, field in settings.model_fields.items():
            yield from self._inside(place, name, field)

    def _inside(self, place: str, name: str, field: FieldInfo) -> Iterator[str]:
        models = models_in(field.annotation)
        above = place.strip("[]")  # a section inside one of a list is written under the last of them
        inner = f"{above}.{name}" if above else name
        if typing.get_origin(field.annotation) is dict:
            inner += ".NAME"
        elif typing.get_origin(field.annotation) is tuple:
            inner = f"[{inner}]"
        if len(models) == 1:
            yield from self.of(inner, models[0])
        elif models and set(models) <= self._shown.keys():
            yield f"## {_brackets(inner)}\n\nThe keys of {_brackets(self._shown[models[0]])}.\n"
        elif models:
            yield f"## {_brackets(inner)}\n\n{_types(models, field)}\n"
            for model in models:
                self._shown[model] = inner
                yield f'### {_brackets(inner)} type = "{_tag(model)}"\n\n{_docstring(model)}\n'
                if published := _published(model):
                    yield f"Defaults that it brings for `[learner]`: {published}.\n"
                if rows := list(_rows(model, inline=True)):
                    yield _table(rows)


def _types(models: list[type[BaseModel]], field: FieldInfo) -> str:
    kinds = _alternatives([f'`"{_tag(model)}"`' for model in models])
    default = f'`"{_tag(field.default)}"`' if isinstance(field.default, BaseModel) else "**required**"
    return f"`type` is {kinds}; default: {default}."


def _rows(settings: type[BaseModel], *, inline: bool, defaults: BaseModel | None = None) -> Iterator[tuple[str, ...]]:
    """(key, type, default, sentence) of each key. inline: keys of sections inside come as rows of this table.

    defaults: an instance whose values are the defaults, for a section that its owner fills differently from its class.
    """
    told = sentences(settings)
    for name, field in settings.model_fields.items():
        models = models_in(field.annotation)
        if name == "type" and typing.get_origin(field.annotation) is Literal:
            continue  # the heading says it
        if inline and len(models) == 1 and isinstance(field.default, models[0]):
            if name in told:
                yield name, "section", "its keys follow", told[name]
            inside = _rows(models[0], inline=True, defaults=field.default)
            yield from ((f"{name}.{row[0]}", *row[1:]) for row in inside)
            continue
        default = field.default if defaults is None else getattr(defaults, name)
        yield name, _words(field), _default(field, default, models), told.get(name, "")


def _default(field: FieldInfo, default: Any, models: list[type[BaseModel]]) -> str:
    if field.is_required():
        return "**required**"
    if default is None:
        return "not set"
    if isinstance(default, BaseModel):
        return f'`type = "{_tag(default)}"`' if len(models) > 1 else "see its section"
    if default in ((), {}):
        return "empty"
    return f"`{_toml(default)}`"


def _toml(value: Any) -> str:
    if isinstance(value, Path):
        value = str(value)
    elif isinstance(value, tuple):
        value = list(value)
    elif isinstance(value, float) and 0 < abs(value) < 1e-3:
        return f"{value:g}"
    return tomli_w.dumps({"key": value}).removeprefix("key = ").strip()


def _words(field: FieldInfo) -> str:
    """The type of a key, in words, with its bounds."""
    words = _type_words(field.annotation)
    bounds: dict[str, Any] = {}
    for rule in field.metadata:
        for name in ("gt", "ge", "lt", "le", "min_length", "pattern"):
            if (bound := getattr(rule, name, None)) is not None:
                bounds[name] = bound
    if {"ge", "le"} <= bounds.keys():
        return f"{words}, {_plain(bounds['ge'])} to {_plain(bounds['le'])}"
    said = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    parts = [f"{said[name]} {_plain(bound)}" for name, bound in bounds.items() if name in said]
    if "min_length" in bounds:
        parts.append("not empty")
    if "pattern" in bounds:
        parts.append(f"matching `{bounds['pattern']}`")
    return ", ".join([words, *parts[:1]]) + "".join(f" and {part}" for part in parts[1:])


def _plain(bound: float) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _type_words(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    models = models_in(annotation)
    if origin is typing.Annotated:
        words = _type_words(arguments[0])
    elif origin is Literal:
        words = _alternatives([f"`{_toml(value)}`" for value in arguments])
    elif origin is tuple:
        words = "list of sections" if models else f"list of {_type_words(arguments[0])}s"
    elif origin is dict:
        words = "section for each name" if models else "table"
    elif origin in (typing.Union, types.UnionType):
        kinds = dict.fromkeys(_type_words(kind) for kind in arguments if kind is not type(None))
        words = " or ".join(kinds)
    elif models:
        words = "section"
    else:
        words = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}[annotation]
    return words


def _alternatives(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _published(settings: type[BaseModel]) -> str:
    def leaves(given: Mapping[str, Any], place: str = "") -> Iterator[str]:
        for name, value in given.items():
            if isinstance(value, Mapping):
                yield from leaves(value, f"{place}{name}.")
            else:
                yield f"`{place}{name} = {_toml(value)}`"

    return ", ".join(leaves(getattr(settings, "published", {})))


def _tag(settings: Any) -> str:
    owner: type[BaseModel] = settings if isinstance(settings, type) else type(settings)
    return str(owner.model_fields["type"].default)


def _docstring(settings: type[BaseModel]) -> str:
    return _linked(" ".join((settings.__doc__ or "").split()))


def _brackets(place: str) -> str:
    return f"`[{place}]`"


def _table(rows: Any) -> str:
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, kind, default, meaning in rows:
        lines.append("| " + " | ".join(_cell(text) for text in (f"`{key}`", kind, default, meaning)) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return _linked(text.replace("|", "\\|"))


def _linked(text: str) -> str:
    return re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", text)


def _metric_tables() -> Iterator[str]:
    """One table for each metrics module, in the order of definition. Metrics made elsewhere follow those of their room."""
    modules = {name: importlib.import_module(name) for name in METRIC_MODULES}
    for name in DECLARED_ELSEWHERE:
        importlib.import_module(name)
    own = {name: [m for m in vars(module).values() if _is_metric(m)] for name, module in modules.items()}
    known = {id(metric) for metrics in own.values() for metric in metrics}
    collectors: list[Any] = list(REGISTRY._collector_to_names)
    for metric in collectors:
        if id(metric) in known or not hasattr(metric, "_labelnames"):
            continue
        family = next(iter(metric.describe()))
        if family.name.startswith("ratchet_"):
            room = family.name.split("_")[1]
            own[f"{room}.metrics" if f"{room}.metrics" in own else "services.metrics"].append(metric)
    for name, module in modules.items():
        yield f"## {name.removesuffix('.metrics').replace('.', ': ')}\n\n{' '.join((module.__doc__ or '').split())}\n"
        yield "| metric | type | labels | meaning |\n| --- | --- | --- | --- |"
        for metric in own[name]:
            labels = ", ".join(
                f"`{label}`" for label in getattr(metric, "_labelnames", getattr(metric, "labelnames", ()))
            )
            for family in metric.describe():
                meaning = _cell(family.documentation)
                yield f"| `{_exported_name(family)}` | {family.type} | {labels} | {meaning} |"
        yield ""


def _is_metric(thing: object) -> bool:
    return hasattr(thing, "describe") and not isinstance(thing, type | CollectorRegistry)


def _exported_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else str(family.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
