"""What the learner holds in memory does not grow with the steps that it takes."""

from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import pytest
from prometheus_client import REGISTRY

from learner.publish.snapshot import Snapshot
from services.wire.prompt import Prompt
from tests.learner.small_run import Replicas, SmallRun, small_config

ROOMS = "learner.", "services."
LOOKED_AT = 40, 80, 120
"""Policy versions, each soon after a checkpoint."""


def parts(held: object) -> Iterator[tuple[str, object]]:
    """What an object of ours, a container or a callable holds, and under which name."""
    if isinstance(held, Mapping):
        yield from (("[]", value) for value in held.values())
    elif isinstance(held, list | tuple | set | frozenset | deque):
        yield from (("[]", value) for value in held)
    elif isinstance(held, MethodType):
        yield "self", held.__self__
    elif isinstance(held, partial):
        yield from (("partial", value) for value in (held.func, *held.args, *held.keywords.values()))
    elif isinstance(held, FunctionType):
        for cell in held.__closure__ or ():
            try:
                yield "closure", cell.cell_contents
            except ValueError:
                continue  # not set yet
    elif type(held).__module__.startswith(ROOMS):
        slots = [slot for each in type(held).__mro__ for slot in getattr(each, "__slots__", ())]
        names = [*getattr(held, "__dict__", {}), *slots]
        yield from ((f".{name}", getattr(held, name, None)) for name in names)


def sizes(held: object) -> dict[str, int]:
    """Path -> elements of all containers there."""
    found: dict[str, int] = {}
    seen: set[int] = set()
    todo: list[tuple[str, object]] = [(type(held).__name__, held)]
    while todo:
        path, one = todo.pop()
        if id(one) in seen or type(one).__module__.startswith("tests.") or path.count(".") > 12:
            continue
        seen.add(id(one))
        if isinstance(one, Mapping | list | tuple | set | frozenset | deque):
            found[path] = found.get(path, 0) + len(one)
        todo += [(path + name, part) for name, part in parts(one)]
    return found


class Watched(Replicas):
    """Looks at what the learner holds each time that it publishes a version of LOOKED_AT."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: Any = None
        self.seen: list[dict[str, int]] = []

    def publish(self, snapshot: Snapshot) -> None:
        super().publish(snapshot)
        del self.published[:-1]
        if snapshot.policy_version in LOOKED_AT:
            metrics = sum(len(metric.samples) for metric in REGISTRY.collect())
            self.seen.append(sizes(self.loop) | {"metrics": metrics})


def some_equal(prompt: Prompt) -> list[float]:
    """One in three groups is dropped."""
    return [1.0, 1.0] if prompt.sequence_number % 3 == 0 else [1.0, 0.0]


@pytest.mark.parametrize(
    "overrides", [("learner.order=dispatch",), ("prompts.sampler={type = 'replay'}",)], ids=["in order", "replay"]
)
def test_nothing_that_the_learner_holds_grows_with_its_steps(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    config = small_config(
        tmp_path,
        "learner.steps=121",
        "learner.checkpoint={every_steps = 10, keep = 2}",
        "evaluation.every_steps=10",
        "weights.mismatch_steps=1000",  # the rooms answer with log-probs of their own
        *overrides,
    )
    run = SmallRun(config, some_equal)
    run.replicas = watched = Watched()
    start = run.start()
    watched.loop = start.loop
    assert start.run()
    first, second, last = watched.seen
    for reached in ("ratchet.recent", "._owed", "._above", "._open", "._training"):
        assert any(path.endswith(reached) for path in first), f"the walk does not get to {reached}: {sorted(first)}"
    grown = {path: (first.get(path, 0), second.get(path, 0), size) for path, size in last.items()}
    assert not {path: found for path, found in grown.items() if found[0] < found[1] < found[2]}
    run.close()


def test_the_walk_sees_a_list_that_grows() -> None:
    held = {"rows": [1, 2]}
    assert sizes(held) == {"dict": 1, "dict[]": 2}
    held["rows"].append(3)
    assert sizes(held) == {"dict": 1, "dict[]": 3}
