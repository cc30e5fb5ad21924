"""Rows of JSON lines, Parquet files and Hugging Face datasets. Each row comes with the place where it was found."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from services.config.prompts import HuggingFaceSource, JsonlSource, ParquetSource, ReasoningGymSource, Source
from services.errors import InputError


class UnreadableRow(InputError):
    """One row cannot be read; other rows of its dataset may be fine."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset, as it was read."""

    place: str
    """Where it is, for error messages: "data/train.jsonl line 7"."""
    fields: dict[str, Any]


def rows(source: Source) -> Iterator[Row | UnreadableRow]:
    """The rows of a source; in place of one that cannot be read, why. Raises InputError if the source as a whole cannot be
    read."""
    match source:
        case JsonlSource():
            return _json_lines(source.path)
        case ParquetSource():
            return _parquet(source.path)
        case HuggingFaceSource():
            return _hugging_face(source)
        case ReasoningGymSource():
            return _reasoning_gym(source)


def _json_lines(path: Path) -> Iterator[Row | UnreadableRow]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                place = f"{path} line {number}"
                if line.isspace():
                    continue
                try:
                    fields = msgspec.json.decode(line.removeprefix(b"\xef\xbb\xbf"))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
                    yield UnreadableRow(
                        f"{place} is not JSON: {fault}. It begins {line[:60]!r}; write one JSON object per line, or remove it"
                    )
                    continue
                if isinstance(fields, dict):
                    yield Row(place, fields)
                else:
                    yield UnreadableRow(f"{place} is {_kind(fields)}, not an object; write one JSON object per line")
    except OSError as fault:
        raise InputError(f"cannot read the dataset {path}: {fault.strerror}; check prompts.source.path") from fault


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"the folder {path} holds no *.parquet file; check prompts.source.path")
    for file in files:
        number = 0
        try:
            with parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(batch_size=1024):
                    for fields in batch.to_pylist():
                        yield Row(f"{file} row {number}", fields)
                        number += 1
        except (OSError, pyarrow.ArrowException, UnicodeDecodeError) as fault:
            raise InputError(f"cannot read the dataset {file}: {fault}; check prompts.source.path") from fault


def _hugging_face(source: HuggingFaceSource) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as fault:
        raise InputError(
            f'prompts.source.type = "huggingface" needs a package: pip install datasets ({fault})'
        ) from fault

    folder = Path(source.name).expanduser()
    name = f"{source.name}, subset {source.subset or 'default'}, split {source.split}"
    try:
        if (folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(folder))
            dataset = loaded[source.split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            dataset = datasets.load_dataset(source.name, source.subset, split=source.split)
    except Exception as fault:  # the library raises errors of many kinds, which all mean this to the user
        raise InputError(
            f"cannot load the dataset {name}: {type(fault).__name__}: {fault}. Check name, subset and split, and that the "
            "hub can be reached; or download it and give its folder as name"
        ) from fault
    for number, fields in enumerate(dataset):
        yield Row(f"{source.name} row {number}", fields)


def _reasoning_gym(source: ReasoningGymSource) -> Iterator[Row]:
    try:
        import reasoning_gym
    except ImportError as fault:
        raise InputError(
            f'prompts.source.type = "reasoning_gym" needs a package: pip install "ratchet[reasoning-gym]" ({fault})'
        ) from fault

    try:
        dataset = reasoning_gym.create_dataset(source.task, seed=source.seed, size=source.size, **source.settings)
    except Exception as fault:  # the package asserts what it wants of its settings
        raise InputError(
            f"prompts.source: reasoning-gym does not make the task {source.task} with settings {source.settings}: "
            f"{type(fault).__name__}: {fault}"
        ) from fault
    told = {"task": source.task, "settings": source.settings, "seed": source.seed, "size": source.size}
    for index in range(source.size):
        fields = {"prompt": dataset[index]["question"], "reference": told | {"index": index}, "grader": "reasoning_gym"}
        yield Row(f"reasoning-gym {source.task} problem {index}", fields)


def _kind(value: object) -> str:
    """What a JSON value is, with its article."""
    return {list: "an array", str: "a string", type(None): "null", bool: "a truth value"}.get(type(value), "a number")
