"""Who is graded next: callers in turn, and of each caller its graders in turn, so that nobody's flood holds up another.

Pure bookkeeping. A chunk holds jobs of one caller and one grader, so that a limit on how many processes may work for one
grader is a matter of not taking its chunk.
"""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

J = TypeVar("J")
Lane = tuple[str, str]
"""Caller and grader."""


class FairQueue(Generic[J]):
    def __init__(self, processes_per_grader: Mapping[str, int] = {}) -> None:
        """processes_per_grader: at most so many chunks of a grader are out at once; others are unlimited."""
        self._most = processes_per_grader
        self._callers: OrderedDict[str, OrderedDict[str, deque[J]]] = OrderedDict()
        self._out: Counter[str] = Counter()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, caller: str, grader: str, jobs: Iterable[J], *, first: bool = False) -> None:
        """first: they were here before, and go to the front of their caller's line, in this order."""
        graders = self._callers.setdefault(caller, OrderedDict())
        line = graders.setdefault(grader, deque())
        before = len(line)
        if first:
            line.extendleft(reversed(list(jobs)))
            graders.move_to_end(grader, last=False)
            self._callers.move_to_end(caller, last=False)
        else:
            line.extend(jobs)
        self._size += len(line) - before
        if not line:
            self._forget(caller, grader)

    def take(self, size: Callable[[str, int], int], room: Callable[[list[J]], bool]) -> tuple[Lane, list[J]] | None:
        """A chunk for one process; None when no line may be served now. size(grader, waiting): jobs at most; room: whether
        a chunk may grow further. The lane is given back by `done`."""
        for caller, graders in self._callers.items():
            for grader, line in graders.items():
                if self._out[grader] >= self._most.get(grader, math.inf):
                    continue
                jobs = [line.popleft()]
                most = size(grader, len(line) + 1)
                while line and len(jobs) < most and room(jobs):
                    jobs.append(line.popleft())
                self._size -= len(jobs)
                self._out[grader] += 1
                graders.move_to_end(grader)
                self._callers.move_to_end(caller)
                if not line:
                    self._forget(caller, grader)
                return (caller, grader), jobs
        return None

    def done(self, grader: str) -> None:
        """The process that had a chunk of this grader is free again."""
        self._out[grader] -= 1

    def _forget(self, caller: str, grader: str) -> None:
        del self._callers[caller][grader]
        if not self._callers[caller]:
            del self._callers[caller]
