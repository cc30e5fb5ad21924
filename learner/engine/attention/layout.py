"""Which tokens of a micro-batch attend to which, in the form that kernels take."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from learner.batch.rows import Spans

PADDING_SPAN = 64
"""On CUDA padding is attended to in spans of at most this many tokens, so that it costs next to nothing."""


class SpanLayout:
    """The spans of one micro-batch, with what follows from them computed once for all layers."""

    def __init__(self, spans: Spans, device: torch.device) -> None:
        self.spans = spans
        self._device = device
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def mask(self, queries: int, keys: int, window: int | None) -> Tensor:
        """bool [queries, keys]: which keys a query sees, the last query being that of the last key.

        window: how many keys up to its own it sees at most; None for all.
        """
        found = self._masks.get((queries, keys, window))
        if found is None:
            at = torch.arange(keys - queries, keys, device=self._device)[:, None]
            behind = at - torch.arange(keys, device=self._device)
            found = behind >= 0 if window is None else (behind >= 0) & (behind < window)
            self._masks[queries, keys, window] = found
        return found

    @cached_property
    def ragged(self) -> "Ragged":
        """For a kernel over sequences of different lengths."""
        return Ragged(self.spans, self._device)

    @cached_property
    def by_shape(self) -> "ByShape":
        """For a kernel over a batch of equal lengths."""
        return ByShape(self.spans, self._device)


@dataclass(frozen=True, slots=True)
class Shape:
    """Spans with as many queries and as many keys as each other."""

    spans: int
    queries: int
    """Each span has as many; those of the span that it continues are among them where that is cheaper."""
    keys: int
    """Each span has as many, with those of the span that it continues."""
    repeated: int
    """Queries of each span that belong to the one that it continues; their outputs are left out."""
    is_padding: bool


class ByShape:
    """Spans in order of their shapes. Indices are int64, on the device of the micro-batch; None: all tokens as they are."""

    def __init__(self, spans: Spans, device: torch.device) -> None:
        starts = _starts(spans.lengths)
        of_shape: dict[tuple[int, int, int | None], list[int]] = {}
        for i, (length, before, padding) in enumerate(
            zip(spans.lengths, spans.continues, spans.is_padding, strict=True)
        ):
            alone = i if padding else None  # nothing is computed for it, so nothing is gained by another beside it
            of_shape.setdefault((length, 0 if before is None else spans.lengths[before], alone), []).append(i)
        self.shapes: list[Shape] = []
        queries: list[int] = []
        keys: list[int] = []
        own: list[int] = []
        for (length, given, alone), members in of_shape.items():
            # A causal kernel over all of the sequence does half of the square; a mask over these queries all of a rectangle,
            # which is more where they are the longer part.
            repeated = given if length > given else 0
            is_padding = alone is not None
            self.shapes.append(Shape(len(members), repeated + length, given + length, repeated, is_padding))
            for i in members:
                before = spans.continues[i]
                prefix = [] if before is None else list(range(starts[before], starts[before] + given))
                tokens = range(starts[i], starts[i] + length)
                own += tokens
                keys += [*prefix, *tokens]
                queries += [*prefix, *tokens] if repeated else tokens
        total = sum(spans.lengths)
        back = torch.empty(total, dtype=torch.int64)
        back[torch.tensor(own, dtype=torch.int64)] = torch.arange(total)
        self.query_index = _index(queries, device)
        self.key_index = _index(keys, device)
        self.back_index = _index(back.tolist(), device)
        """Where the output of each token is."""


class Ragged:
    """Offsets of queries and keys on flat axes. On the device of the micro-batch."""

    def __init__(self, spans: Spans, device: torch.device) -> None:
        starts = _starts(spans.lengths)
        queries: list[int] = []
        keys: list[int] = []
        key_index: list[Tensor] = []
        for start, length, before, padding in zip(
            starts, spans.lengths, spans.continues, spans.is_padding, strict=True
        ):
            parts = [PADDING_SPAN] * (length // PADDING_SPAN) + [length % PADDING_SPAN] if padding else [length]
            queries += [part for part in parts if part]
            given = 0 if before is None else spans.lengths[before]
            keys += [part + given for part in parts if part]
            if before is not None:
                key_index.append(torch.arange(starts[before], starts[before] + given))
            key_index.append(torch.arange(start, start + length))
        self.cu_queries = _offsets(queries, device)
        """int32 [n + 1]: where the queries of each sequence begin, and the number of all."""
        self.cu_keys = _offsets(keys, device)
        """int32 [n + 1]: the same for its keys."""
        self.most_queries = max(queries)
        self.most_keys = max(keys)
        self.key_index: Tensor | None = None
        """int64: the token of each key, where tokens are the keys of several sequences; else None."""
        if any(before is not None for before in spans.continues):
            self.key_index = torch.cat(key_index).to(device, non_blocking=True)


def _starts(lengths: Sequence[int]) -> list[int]:
    return list(itertools.accumulate(lengths, initial=0))[:-1]


def _index(tokens: list[int], device: torch.device) -> Tensor | None:
    """None if it changes nothing."""
    if tokens == list(range(len(tokens))):
        return None
    return torch.tensor(tokens, dtype=torch.int64).to(device, non_blocking=True)


def _offsets(lengths: list[int], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32).to(device, non_blocking=True)


@cache
def rows_alone(rows: int, width: int) -> Spans:
    """Rows that hold one sequence each, without padding."""
    return Spans(lengths=(width,) * rows, continues=(None,) * rows, is_padding=(False,) * rows)
