"""Problems from files and from the Hugging Face hub, and the order in which a run goes through them.

Whatever is wrong with a row is said with the file, the row, the column and what to do, before anything starts.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.config.prompts import ColumnMap, HuggingFaceSource, JsonlSource, ParquetSource, PromptsConfig
from services.errors import InputError
from services.graders import GRADERS, known_graders

Row = Mapping[str, Any]
Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Problem:
    """One task with a checkable answer."""

    row: int
    """Place in the dataset, from 0."""
    prompt: str | list[Message]
    """Text, or chat messages with `role` and `content`."""
    reference: Any
    """What the grader compares with: any JSON value."""
    grader: str
    options: dict[str, Any]


def load_problems(settings: PromptsConfig, *, limit: int | None = None) -> list[Problem]:
    """All problems, or the first `limit`. Raises InputError naming the row that is wrong."""
    source = settings.source
    if isinstance(source, JsonlSource):
        rows = _jsonl_rows(source.path)
    elif isinstance(source, ParquetSource):
        rows = _parquet_rows(source.path)
    else:
        rows = _huggingface_rows(source)
    read = _columns(settings)
    problems = [read(row, place, number) for number, (place, row) in enumerate(itertools.islice(rows, limit))]
    if not problems:
        raise InputError(f"{_name(source)} is empty; give a dataset with at least one problem")
    return problems


class PromptCursor:
    """From a sequence number to a row: every epoch visits each row once, in an order of its own.

    A function of seed and number alone, so a run resumes by remembering a number.
    """

    def __init__(self, seed: int, rows: int, *, shuffle: bool) -> None:
        self._seed, self._rows, self._shuffle = seed, rows, shuffle
        self._epoch, self._order = -1, np.arange(rows)

    def at(self, sequence_number: int) -> tuple[int, int]:
        """(epoch, row), both from 0."""
        epoch, place = divmod(sequence_number, self._rows)
        if self._shuffle and epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._rows)
            self._epoch = epoch
        return epoch, int(self._order[place])


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                place = f"{path}, line {number}"
                try:
                    row = json.loads(line)
                except ValueError as fault:  # not JSON, or not UTF-8
                    raise InputError(f"{place}: not a JSON object: {fault}; mend the line or delete it") from None
                if not isinstance(row, dict):
                    raise InputError(f"{place}: a {type(row).__name__}, not a JSON object; write one object a line")
                yield place, row
    except OSError as fault:
        raise InputError(f"cannot read the dataset {path}: {fault.strerror}") from fault


def _parquet_rows(path: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow
    import pyarrow.parquet

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"the folder {path} has no *.parquet file")
    for file in files:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in table.iter_batches())
            for number, row in enumerate(rows):
                yield f"{file}, row {number}", row
        except (OSError, pyarrow.ArrowException) as fault:
            raise InputError(f"cannot read {file} as Parquet: {fault}") from fault


def _huggingface_rows(source: HuggingFaceSource) -> Iterator[tuple[str, Row]]:
    import datasets

    try:
        rows = datasets.load_dataset(source.name, source.subset, split=source.split)
    except Exception as fault:  # the library raises a dozen kinds for what is one thing here
        raise InputError(
            f"cannot load the Hugging Face dataset {_name(source)}: {fault}. Check name, subset and split, and that this "
            "host reaches the hub or has the dataset in its cache"
        ) from fault
    for number, row in enumerate(rows):
        yield f"{_name(source)}, row {number}", row


def _name(source: JsonlSource | ParquetSource | HuggingFaceSource) -> str:
    if isinstance(source, HuggingFaceSource):
        return ":".join(part for part in (source.name, source.subset, source.split) if part)
    return str(source.path)


Reader = Callable[[Row, str, int], Problem]


def _columns(settings: PromptsConfig) -> Reader:
    """How to read a row, by convention or by column map."""
    if settings.columns == "gsm8k":
        return lambda row, place, number: _problem(
            settings, place, number, _field(row, "question", place), _final_answer(_field(row, "answer", place), place)
        )
    if settings.columns == "dapo-math-17k":
        return lambda row, place, number: _problem(
            settings,
            place,
            number,
            _field(row, "prompt", place),
            _field(_object(_field(row, "reward_model", place), "reward_model", place), "ground_truth", place),
        )
    named = settings.columns
    columns = named if isinstance(named, ColumnMap) else ColumnMap(prompt="prompt", reference="reference")
    grader = columns.grader or ("grader" if named == "plain" else None)
    options = columns.options or ("options" if named == "plain" else None)
    required = isinstance(named, ColumnMap)  # a column that was asked for by name has to be there

    def read(row: Row, place: str, number: int) -> Problem:
        return _problem(
            settings,
            place,
            number,
            _field(row, columns.prompt, place),
            _field(row, columns.reference, place),
            grader=_optional(row, grader, place, required=required),
            options=_optional(row, options, place, required=required),
        )

    return read


def _problem(
    settings: PromptsConfig,
    place: str,
    number: int,
    prompt: object,
    reference: Any,
    grader: object = None,
    options: object = None,
) -> Problem:
    chosen = settings.grader if grader is None else grader
    if not isinstance(chosen, str) or chosen not in GRADERS:
        raise InputError(f"{place}: no grader {chosen!r}; there are {', '.join(sorted(GRADERS))}")
    if reference is None:
        raise InputError(f"{place}: the reference is null, so no answer could be right; give one or delete the row")
    extra = {} if options is None else _object(options, "options", place)
    return Problem(number, _prompt(prompt, place), reference, chosen, {**settings.options, **extra})


def _prompt(prompt: object, place: str) -> str | list[Message]:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise InputError(f"{place}: the prompt is empty")
        return prompt
    if isinstance(prompt, Iterable) and not isinstance(prompt, Mapping | bytes):
        messages = list(prompt)
        if messages and all(isinstance(m, Mapping) and {"role", "content"} <= m.keys() for m in messages):
            return [{"role": str(m["role"]), "content": str(m["content"])} for m in messages]
    raise InputError(f"{place}: a prompt is a text or a list of messages with role and content, not {prompt!r:.80}")


def _field(row: Row, column: str, place: str) -> Any:
    if column not in row:
        raise InputError(f'{place}: no column "{column}"; there are {", ".join(map(repr, row))}. See prompts.columns')
    return row[column]


def _optional(row: Row, column: str | None, place: str, *, required: bool) -> Any:
    if column is None or (column not in row and not required):
        return None
    return _field(row, column, place)


def _object(value: object, column: str, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f'{place}: column "{column}" is {value!r:.60}, not an object')
    return dict(value)


def _final_answer(answer: object, place: str) -> str:
    """GSM8K writes its answers as reasoning, then `#### 1,234` on the last line."""
    text, mark, final = str(answer).rpartition("####")
    if not mark or not final.strip():
        raise InputError(f'{place}: the answer does not end with "#### NUMBER", as columns = "gsm8k" says it does')
    return final.strip().replace(",", "")
