"""Scores a file of responses without a run and without HTTP, so that a grader can be trusted before it teaches anything:
`ratchet verify FILE`.

Each line of FILE is a JSON object with `response` and `reference`; optionally `grader`, `options`, `response_tokens`, `id`,
and `expected`, the verdict that a person would give. Other members are ignored. The whole file is checked before anything is
graded and read a second time to grade it, so that its size does not matter. Nothing is cached: each verdict is fresh.

Exit code 0: every expectation is met, or there are none; 1: some are not; 2: a line, an option or a setting is wrong.
"""

import argparse
import asyncio
import json
import logging
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from services import entry
from services.config.load import load, load_verifier
from services.config.verifier import VerifierConfig
from services.errors import InputError
from services.graders import graders, known_graders
from services.wire.verdict import Score
from verifier.attempts import ask_again
from verifier.contract import ScoreItem
from verifier.grading import Grading, open_grading
from verifier.network.endpoints import Endpoints
from verifier.offline.check_references import option_fault
from verifier.offline.lines import Defaults, Line, read_lines
from verifier.offline.report import Report
from verifier.supervised import supervised

UNMET = 1
BATCH_LINES = 2048
BATCHES_AT_ONCE = 2  # while the last lines of one are graded, the next one keeps the processes busy


def main() -> int:
    arguments = _parser().parse_args()
    quiet_logging()
    settings = _settings(arguments)
    defaults = Defaults(arguments.grader, _options(arguments.options), settings.max_depth)
    if arguments.grader not in graders():
        raise InputError(f"--grader {arguments.grader}: no such grader; known: {known_graders()}")
    if defaults.options and (fault := option_fault(defaults.grader, defaults.options)):
        raise InputError(f"--options {arguments.options}: {fault}")
    ignored: set[str] = set()
    used, count = _checked(arguments.file, defaults, ignored)
    report = Report()
    with ExitStack() as stack:
        out = stack.enter_context(_opened(arguments.out, arguments.file)) if arguments.out else None
        asyncio.run(_grade(arguments.file, defaults, settings, used, count, report, out))
    console = Console()
    report.show(console, every_disagreement=arguments.errors)
    if ignored:
        console.print(Text(f"members of the lines that were not read: {', '.join(sorted(ignored))}"), soft_wrap=True)
    return entry.DONE if report.met else UNMET


def quiet_logging() -> None:
    entry.start_logging()
    logging.getLogger("ratchet.verifier").setLevel(logging.ERROR)  # the report says what happened to single responses


async def _grade(
    file: Path,
    defaults: Defaults,
    settings: VerifierConfig,
    used: Mapping[str, int],
    count: int,
    report: Report,
    out: IO[bytes] | None,
) -> None:
    """used: grader -> the first line that names it."""
    async with Endpoints(settings.endpoints) as endpoints, open_grading(settings, endpoints) as grading:
        for name, number in used.items():
            if fault := grading.catalogue[name].fault:
                raise InputError(f"{file}, line {number}: grader {name} cannot be used: {fault}")
        failure = asyncio.create_task(grading.pool.failed())
        with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
            bar = progress.add_task("grading", total=count)

            async def collect() -> None:
                async for line, score in _scored(grading, read_lines(file, defaults, set()), settings.attempts):
                    report.add(line, score)
                    progress.advance(bar)
                    if out is not None:
                        out.write(msgspec.json.encode(_result(line, score)) + b"\n")

            try:
                await supervised(collect(), failure)
            finally:
                failure.cancel()


async def _scored(grading: Grading, lines: Iterator[Line], attempts: int) -> AsyncIterator[tuple[Line, Score]]:
    """Each line with its score, in the order of the file."""
    ahead: deque[tuple[list[Line], asyncio.Task[list[Score]]]] = deque()
    try:
        while True:
            if batch := list(islice(lines, BATCH_LINES)):
                ahead.append((batch, asyncio.create_task(_score(grading, [line.item for line in batch], attempts))))
            if not ahead:
                return
            if not batch or len(ahead) == BATCHES_AT_ONCE:
                oldest, scoring = ahead.popleft()
                for line, score in zip(oldest, await scoring, strict=True):
                    yield line, score
    finally:
        for _, scoring in ahead:
            scoring.cancel()


async def _score(grading: Grading, items: list[ScoreItem], attempts: int) -> list[Score]:
    """The scores of a batch. Responses without a verdict are asked for again, as often as in a run."""
    scores = await grading.score(items)
    await ask_again(grading.score, items, scores, attempts=attempts, pause=asyncio.sleep)
    return scores


def _checked(file: Path, defaults: Defaults, ignored: set[str]) -> tuple[dict[str, int], int]:
    """Each grader with the first line that asks for it, and the number of lines. Raises InputError."""
    first: dict[str, int] = {}
    count = 0
    for line in read_lines(file, defaults, ignored):
        first.setdefault(line.item.grader, line.number)
        count += 1
    if not count:
        raise InputError(f"{file} has no lines; each is an object with a response and a reference")
    return first, count


def _result(line: Line, score: Score) -> dict[str, Any]:
    told = {"id": line.item.id, "line": line.number, "grader": line.item.grader}
    expected = {"expected": line.expected} if line.expected else {}
    return told | expected | {name: getattr(score, name) for name in ("verdict", "reward", "detail", "elapsed_s")}


def _opened(out: Path, file: Path) -> IO[bytes]:
    if out.exists() and out.samefile(file):
        raise InputError(f"--out {out} is the file that is graded; name another")
    try:
        return out.open("wb")
    except OSError as fault:
        raise InputError(f"--out {out} cannot be written: {fault.strerror}") from fault


def _options(text: str) -> dict[str, Any]:
    try:
        options = json.loads(text)
    except json.JSONDecodeError as fault:
        raise InputError(f"--options {text}: not JSON: {fault}") from fault
    if not isinstance(options, dict):
        raise InputError(f"--options {text}: give a JSON object, such as '{{\"strip\": false}}'")
    return options


def _settings(arguments: argparse.Namespace) -> VerifierConfig:
    given = {"processes": arguments.processes, "item_deadline_s": arguments.deadline}
    overrides = [f"verifier.{name}={value}" for name, value in given.items() if value is not None]
    if arguments.config is not None:
        return load(arguments.config, overrides).verifier
    return load_verifier(None, overrides)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ratchet verify", description="Score a file of responses, and compare with the verdicts that you expect."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON lines with `response` and `reference`")
    parser.add_argument(
        "--grader", default="math", metavar="NAME", help="grader of lines that name none; default: math"
    )
    parser.add_argument("--options", default="{}", metavar="JSON", help="options of --grader, for lines that have none")
    parser.add_argument("--processes", type=int, help="grader processes; default: verifier.processes, or 2")
    parser.add_argument(
        "--deadline", type=float, metavar="SECONDS", help="deadline for one response; default: as in a run"
    )
    parser.add_argument(
        "--config", type=Path, metavar="RUN.toml", help="take its [verifier]: endpoints, limits, sandbox"
    )
    parser.add_argument("--out", type=Path, metavar="RESULTS.jsonl", help="write each verdict, in the order of FILE")
    parser.add_argument("--errors", action="store_true", help="show every disagreement, not only the first few")
    return parser


if __name__ == "__main__":
    entry.end(main)
