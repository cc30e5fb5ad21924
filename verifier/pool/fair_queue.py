"""Which items are graded next: callers in turn, and the graders of each caller in turn, so that no flood holds up others.

Pure bookkeeping. A chunk holds items of one caller and one grader, so that a limit on how many processes may work for one
grader is a matter of not taking its chunk.
"""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    def __init__(self, processes_per_grader: Mapping[str, int] = {}) -> None:
        """processes_per_grader: at most this many chunks of a grader are out at once; other graders are unlimited."""
        self._limits = processes_per_grader
        self._callers: OrderedDict[str, OrderedDict[str, deque[T]]] = OrderedDict()
        self._out: Counter[str] = Counter()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, caller: str, grader: str, items: Iterable[T], *, first: bool = False) -> None:
        """Adds items to the line of their caller and grader. first: they were taken before, and go to the front in this order."""
        graders = self._callers.setdefault(caller, OrderedDict())
        line = graders.setdefault(grader, deque())
        before = len(line)
        if first:
            line.extendleft(reversed(list(items)))
            graders.move_to_end(grader, last=False)
            self._callers.move_to_end(caller, last=False)
        else:
            line.extend(items)
        self._size += len(line) - before
        if not line:
            self._forget(caller, grader)

    def take(self, size: Callable[[str, int], int], room: Callable[[list[T]], bool]) -> list[T] | None:
        """A chunk for one process, or None when no line may be served now; `done` ends it.

        size(grader, waiting): the most items of the chunk. room(chunk): whether it may grow further.
        """
        for caller, graders in self._callers.items():
            for grader, line in graders.items():
                if self._out[grader] >= self._limits.get(grader, math.inf):
                    continue
                chunk = [line.popleft()]
                most = size(grader, len(line) + 1)
                while line and len(chunk) < most and room(chunk):
                    chunk.append(line.popleft())
                self._size -= len(chunk)
                self._out[grader] += 1
                graders.move_to_end(grader)
                self._callers.move_to_end(caller)
                if not line:
                    self._forget(caller, grader)
                return chunk
        return None

    def done(self, grader: str) -> None:
        """The process that had a chunk of this grader is free again."""
        self._out[grader] -= 1

    def _forget(self, caller: str, grader: str) -> None:
        del self._callers[caller][grader]
        if not self._callers[caller]:
            del self._callers[caller]
