"""Tool `search`: the documents of a file that a query's words fit best, by BM25.

Okapi BM25 with the inverse document frequency of Lucene, ln(1 + (N - n + 0.5) / (n + 0.5)), which is never negative.
"""

import asyncio
import heapq
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rollout.environments.tools.function import Function
from services.config.tools import SearchTool
from services.errors import InputError

SATURATION, LENGTH_SHARE = 1.2, 0.75
"""k1 and b, as usual."""
WORD = re.compile(r"\w+")
DESCRIPTION = "Finds the documents that fit the words of a query best."
PARAMETERS = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "a few words"}},
    "required": ["query"],
    "additionalProperties": False,
}


class Index:
    """Documents by their words."""

    def __init__(self, documents: Sequence[str]) -> None:
        counts = [Counter(_words(document)) for document in documents]
        lengths = [count.total() for count in counts]
        mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
        self._pull = [SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * length / mean) for length in lengths]
        self._places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, count in enumerate(counts):
            for word, times in count.items():
                self._places[word].append((place, times))

    def best(self, query: str, most: int) -> list[int]:
        """Places of the documents that fit best, the best first; none that has no word of the query."""
        scores: dict[int, float] = defaultdict(float)
        for word in set(_words(query)):
            found = self._places.get(word, ())
            weight = math.log(1 + (len(self._pull) - len(found) + 0.5) / (len(found) + 0.5))
            for place, times in found:
                scores[place] += weight * times * (SATURATION + 1) / (times + self._pull[place])
        return heapq.nsmallest(most, scores, key=lambda place: (-scores[place], place))


class Search:
    def __init__(self, settings: SearchTool, place: str) -> None:
        """place: of the settings, for errors. Reads the whole file."""
        self._settings = settings
        self._documents = _read(settings.path, place)
        self._index = Index([f"{title}\n{text}" for title, text in self._documents])
        self._function = Function(settings.name, DESCRIPTION, PARAMETERS, self._call, settings.seconds)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Sequence[Function]]:
        yield [self._function]

    async def _call(self, arguments: dict[str, Any]) -> str:
        # In a thread: a frequent word has many places, and other conversations go on meanwhile.
        found = await asyncio.to_thread(self._index.best, arguments["query"], self._settings.results)
        most = self._settings.document_characters
        shown = []
        for number, place in enumerate(found, start=1):
            title, text = self._documents[place]
            shown.append(f"{number}. {title}\n{text[:most]}" if title else f"{number}. {text[:most]}")
        return "\n\n".join(shown) or "Nothing was found."


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _read(path: Path, place: str) -> list[tuple[str, str]]:
    """(title, text) of each document. Raises InputError that names the line."""
    documents = []
    try:
        with path.open("rb") as file:  # a file of text is decoded in blocks, whose faults have no line
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                try:
                    document = json.loads(line.decode("utf-8"))
                    title, text = document.get("title", ""), document["text"]
                except UnicodeDecodeError as fault:
                    raise InputError(
                        f"{place}.path: {path} line {number} is not UTF-8: {fault}; convert the file"
                    ) from None
                except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
                    raise InputError(
                        f'{place}.path: {path} line {number} is not an object with a "text", as in {{"text": "..."}}'
                    ) from None
                if not isinstance(title, str) or not isinstance(text, str):
                    raise InputError(f"{place}.path: {path} line {number}: title and text have to be texts")
                documents.append((title, text))
    except OSError as fault:
        raise InputError(
            f"{place}.path: {path} cannot be read: {fault.strerror}; give a file of JSON lines, one document each"
        ) from fault
    if not documents:
        raise InputError(f'{place}.path: {path} holds no documents; write one a line, as in {{"text": "..."}}')
    return documents
