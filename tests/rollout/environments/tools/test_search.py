"""Search finds the documents that a query's words fit best, and names the line of a file that is none."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rollout.environments.tools.search import Index, Search
from services.config.tools import SearchTool
from services.errors import InputError

DOCUMENTS = [
    {"title": "Otter", "text": "The otter swims in rivers and eats fish. Otters play."},
    {"title": "Heron", "text": "A heron stands in rivers and waits for fish."},
    {"text": "Granite is a rock."},
]


def file_of(folder: Path, *lines: Any) -> Path:
    path = folder / "documents.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines), encoding="utf-8")
    return path


def asked(path: Path, query: str, **options: Any) -> str:
    async def call() -> str:
        settings = SearchTool.model_validate({"path": str(path), **options})
        async with Search(settings, "environment.tools.0").opened() as (function,):
            return await function.call({"query": query})

    return asyncio.run(call())


def test_the_document_that_fits_best_comes_first(tmp_path: Path) -> None:
    path = file_of(tmp_path, *DOCUMENTS)
    found = asked(path, "which OTTER eats fish?")
    assert found.startswith("1. Otter\nThe otter swims")
    assert "2. Heron" in found
    assert "Granite" not in found
    assert asked(path, "rock").startswith("1. Granite is a rock.")
    assert asked(path, "xylophone") == "Nothing was found."
    assert asked(path, "fish", results=1).count("rivers") == 1
    assert asked(path, "rock", document_characters=7) == "1. Granite"


def test_scores_are_those_of_the_formula() -> None:
    """By hand: N = 3, mean length 2; "b" stands in two documents, once in the longer one and twice in the shorter."""
    index = Index(["a b c", "b b", "d"])
    assert index.best("b", 3) == [1, 0]
    assert index.best("a b", 1) == [0]  # the rare word weighs more
    assert index.best("b", 1) == [1]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([DOCUMENTS[0], "{"], r"environment.tools.0.path: .*documents.jsonl line 2 is not an object"),
        ([["text"]], "line 1 is not an object"),
        ([{"title": "x"}], 'line 1 is not an object with a "text"'),
        ([{"text": 3}], "line 1: title and text have to be texts"),
        ([], "holds no documents"),
    ],
)
def test_a_file_that_is_none_is_named_with_its_line(tmp_path: Path, lines: list[Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        asked(file_of(tmp_path, *lines), "fish")


def test_a_file_of_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = file_of(tmp_path, *DOCUMENTS)
    path.write_bytes(path.read_bytes() + '\n{"text": "caf\xe9"}\n'.encode("latin-1"))
    with pytest.raises(InputError, match=r"documents.jsonl line 4 is not UTF-8: .*0xe9.*; convert the file"):
        asked(path, "fish")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        asked(tmp_path / "gone.jsonl", "fish")
