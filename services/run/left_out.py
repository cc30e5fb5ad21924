"""Rows that the check before a run has found unusable and the settings allow to leave out, for the learner.

They are those whose references no grader can judge: only the command that starts the run has asked the graders. A dataset
that is not the one that was looked at has nothing left out.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from services.datasets.dataset import Problem
from services.run.json_text import json_text


def write_left_out(path: Path, sections: Mapping[str, tuple[Sequence[Problem], Collection[int]]]) -> None:
    """sections: section of prompts -> all its problems as they are read, and the rows of those to leave out."""
    content = {
        section: {"dataset": _digest(problems), "rows": sorted(rows)}
        for section, (problems, rows) in sections.items()
        if rows
    }
    path.unlink(missing_ok=True)
    if content:
        path.write_text(json_text(content), encoding="utf-8")


def left_out(path: Path, section: str, problems: Sequence[Problem]) -> Collection[int]:
    """The rows of these problems to leave out."""
    if not path.exists():
        return ()
    noted = json.loads(path.read_text(encoding="utf-8")).get(section)
    return set(noted["rows"]) if noted and noted["dataset"] == _digest(problems) else ()


def _digest(problems: Sequence[Problem]) -> str:
    rows = [(one.row, one.prompt, one.reference, one.grader, one.options) for one in problems]
    return hashlib.sha256(msgspec.json.encode(rows, order="sorted")).hexdigest()
