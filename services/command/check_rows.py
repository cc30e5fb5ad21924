"""Every row of every dataset of a run: read, rendered, and its reference asked of its grader, before anything is started."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.command import reference_check
from services.config import RunConfig
from services.config.prompts import SourceConfig
from services.datasets.dataset import Problem, origin_of, read_problems
from services.datasets.overlap import overlap_warning
from services.datasets.rendering import Renderer
from services.datasets.sources import UnreadableRow
from services.errors import InputError
from services.numbers import count

NAMED = 10
"""How many rows that cannot be used a message names."""


@dataclass(frozen=True)
class CheckedRows:
    """What one dataset of a run holds."""

    section: str
    """The setting: "prompts", "evaluation.prompts", or one of their sources, such as "prompts.sources.1"."""
    problems: list[Problem]
    """Those that can be read."""
    faults: dict[int, str] = field(default_factory=dict)
    """Row -> why it cannot be used, though it can be read."""
    ungradable: set[int] = field(default_factory=set)
    """Rows among `faults` whose references no grader can judge."""
    unreadable: list[str] = field(default_factory=list)
    """Why each other row cannot be read."""

    @property
    def is_trained_on(self) -> bool:
        return not self.section.startswith("evaluation.")

    @property
    def usable(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.row not in self.faults]

    def told(self) -> str:
        """What is wrong with which rows; empty when nothing is."""
        whys = [*self.unreadable, *self.faults.values()]
        remedy = f". With {self.section}.skip_unreadable = true such rows are left out" if self.usable else ""
        if len(whys) == 1:
            return f"{self.section}: {whys[0]}{remedy}"
        shown = "\n".join(f"  {why}" for why in whys[:NAMED])
        more = f", the first {NAMED}" if len(whys) > NAMED else ""
        of = len(self.problems) + len(self.unreadable)
        return (
            f"{self.section}: {count(len(whys))} of {count(of)} rows cannot be used{more}:\n{shown}{remedy}"
            if whys
            else ""
        )


def check_rows(config: RunConfig) -> tuple[list[CheckedRows], list[str]]:
    """Look at every row. Returns the datasets, and warnings about what is left out or looks wrong; raises InputError for rows
    that may not be left out, and for what is no matter of single rows."""
    renderer = Renderer(config.model.path, trust_remote_code=config.model.trust_remote_code)
    found = [_rendered(config, renderer, section, settings) for section, settings in sections(config).items()]
    _ask_graders(config, found)
    warnings = []
    for rows in found:
        told = rows.told()
        if not rows.usable:
            raise InputError(told or f"{rows.section}: the dataset is empty; it needs at least one row")
        if told and not sections(config)[rows.section].skip_unreadable:
            raise InputError(told)
        if told:
            left = len(rows.unreadable) + len(rows.faults)
            first = [*rows.unreadable, *rows.faults.values()][0]
            warnings.append(
                f"{rows.section}: {count(left)} rows are left out, {count(len(rows.usable))} used. The first: {first}"
            )
    return found, list(dict.fromkeys([*warnings, *_looks_wrong(config, renderer, found)]))


def _looks_wrong(config: RunConfig, renderer: Renderer, found: list[CheckedRows]) -> Iterator[str]:
    """Warnings about how the problems are put to the model, and about held-out ones that are trained on."""
    for rows in found:
        settings = sections(config)[rows.section]
        for warning in renderer.check(settings, rows.usable, stop_token_ids=config.rollout.sampling.stop_token_ids):
            yield _as_in(rows.section, warning)
    training = [problem for rows in found if rows.is_trained_on for problem in taken(config, rows)]
    held_out = [problem for rows in found if not rows.is_trained_on for problem in taken(config, rows)]
    if shared := overlap_warning(training, held_out):
        yield shared
    yield from _too_few(config, [rows for rows in found if rows.is_trained_on])


def taken(config: RunConfig, rows: CheckedRows) -> list[Problem]:
    """The problems of a source that the run takes."""
    bounds = [sections(config)[rows.section].max_prompts]
    if not rows.is_trained_on and config.evaluation is not None:
        bounds.append(config.evaluation.max_prompts)
    return rows.usable[: min((bound for bound in bounds if bound is not None), default=None)]


def _too_few(config: RunConfig, sources: list[CheckedRows]) -> Iterator[str]:
    """Raises InputError where every source ends before the last step; yields a warning for those that end while others go on."""
    needed = config.learner.steps * config.learner.groups_per_step
    settings = [sections(config)[rows.section] for rows in sources]
    given = [len(taken(config, rows)) * one.epochs for rows, one in zip(sources, settings, strict=True) if one.epochs]
    if len(given) == len(sources) and sum(given) < needed:
        raise InputError(
            f"every source of prompts.sources ends, after {count(sum(given))} prompts together, and learner.steps = "
            f"{config.learner.steps} times learner.groups_per_step = {config.learner.groups_per_step} needs at least "
            f"{count(needed)}: raise an epochs of prompts.sources, or lower learner.steps"
        )
    total = sum(one.weight for one in settings)
    for rows, one in zip(sources, settings, strict=True):
        problems = len(taken(config, rows))
        if one.epochs is not None and problems * one.epochs < needed * one.weight / total:
            yield (
                f"{rows.section} ({one.name}) ends after {count(problems * one.epochs)} prompts, before the last step; its "
                "share then goes to the other sources"
            )


def check_datasets(config: RunConfig) -> None:
    """Read every dataset, which takes no tokenizer. Raises InputError for one that is not there, or empty."""
    for section, settings in sections(config).items():
        problems, unreadable = _read(section, settings)
        if not problems and not unreadable:
            raise InputError(f"{section}: the dataset {origin_of(settings)} is empty; it needs at least one row")


def problems_of(config: RunConfig, section: str) -> list[Problem]:
    """All problems of a dataset that can be read."""
    return _read(section, sections(config)[section])[0]


def _read(section: str, settings: SourceConfig) -> tuple[list[Problem], list[UnreadableRow]]:
    try:
        return read_problems(settings)
    except InputError as fault:
        # The reader of a dataset says `prompts` for both.
        raise InputError(_as_in(section, str(fault))) from fault


def _as_in(section: str, said: str) -> str:
    """What is said of settings of `prompts`, said of those of this section."""
    return re.sub(r"(?<![\w.])prompts\.", f"{section}.", said)


def sections(config: RunConfig) -> dict[str, SourceConfig]:
    """The settings of each dataset of the run, by their place in the run file."""
    held_out = config.evaluation.prompts.by_place("evaluation.prompts") if config.evaluation else {}
    return config.prompts.by_place("prompts") | held_out


def _rendered(config: RunConfig, renderer: Renderer, section: str, settings: SourceConfig) -> CheckedRows:
    room = config.model.max_length - config.sampling_of(settings).max_tokens
    problems, unreadable = _read(section, settings)
    rows = CheckedRows(section, problems, unreadable=[str(fault) for fault in unreadable])
    for problem in problems:
        try:
            renderer.render(problem, settings, max_prompt_tokens=room)
        except UnreadableRow as fault:
            rows.faults[problem.row] = str(fault)
    return rows


def _ask_graders(config: RunConfig, found: list[CheckedRows]) -> None:
    """Let the graders say which references they cannot judge by."""
    asked: dict[str, tuple[CheckedRows, Problem]] = {}
    questions = []
    for rows in found:
        for problem in rows.problems:
            place = f"{rows.section}: {problem.place}"
            _check_endpoints(config, place, problem.grader, problem.options)
            asked[place] = rows, problem
            questions.append(
                reference_check.Question(
                    place=place, grader=problem.grader, reference=problem.reference, options=problem.options
                )
            )
    for fault in reference_check.faults(questions, sandbox=config.verifier.sandbox.model_dump_json()):
        rows, problem = asked[fault.place]
        rows.faults.setdefault(problem.row, f"{problem.place}: {fault.fault}")
        rows.ungradable.add(problem.row)


def _check_endpoints(config: RunConfig, place: str, grader: str, options: Mapping[str, Any]) -> None:
    for name, endpoint in _endpoints(grader, options):
        if endpoint not in config.verifier.endpoints:
            known = ", ".join(sorted(config.verifier.endpoints)) or "none"
            raise InputError(
                f'{place}: grader {name} asks the endpoint "{endpoint}", and there is no [verifier.endpoints.{endpoint}]; '
                f"known: {known}"
            )


def _endpoints(grader: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(grader, name of the endpoint that it asks), of this grader and its parts."""
    if grader in ("judge", "remote"):
        yield grader, str(options.get("endpoint", grader))
    for part in options.get("parts", []) if grader == "combine" else []:
        if isinstance(part, dict):
            yield from _endpoints(str(part.get("grader")), part.get("options", {}))
