"""Grader `reasoning_gym`: the score that a task of the package reasoning-gym gives an answer.

The reference is {"task": str, "settings": {...}, "seed": int, "size": int, "index": int}, as the source `reasoning_gym` writes
it: the problem is made again from it, because what the package needs for its score is not always JSON. Failure modes: many tasks
give a small reward to an answer that only holds the right one, or has its form; with another version of the package the same seed
may make other problems. Tasks whose score evaluates the answer as a program are refused: a grader process is no sandbox.
"""

import functools
import importlib
import importlib.metadata
import inspect
import json
import re
from contextlib import suppress
from typing import Any, ClassVar

import msgspec

from verifier.grader import Grader, Judgment, ScoringFault

MISSING = 'the package is not installed: pip install "ratchet[reasoning-gym]"'
EVALUATES = re.compile(r"(?<![\w.])(?:eval|exec)\(|parse_expr|sympify")
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    task: str
    seed: int
    size: int
    index: int
    settings: dict[str, Any] = {}


class ReasoningGym(Grader, frozen=True):
    version: ClassVar[str] = "1"

    correct_from: float = 1.0
    """The least score that counts as correct in pass rates."""

    @classmethod
    def unavailable(cls) -> str:
        """Why this machine cannot score; empty if it can."""
        try:
            importlib.metadata.version("reasoning-gym")
        except importlib.metadata.PackageNotFoundError:
            return MISSING
        return ""

    @classmethod
    def warm_up(cls) -> None:
        """The package takes up to a second of a core to import, and several seconds on a machine whose cores are full."""
        with suppress(ImportError):  # the first reference says what is missing
            importlib.import_module("reasoning_gym.factory")

    def check(self, reference: Any) -> None:
        _problem(reference)

    def score(self, response: str, reference: Any) -> Judgment:
        dataset, problem = _problem(reference)
        tagged = TAGGED.findall(response)
        score = float(dataset.score_answer((tagged[-1] if tagged else response).strip(), problem))
        return Judgment(score >= self.correct_from, f"{reference['task']} gives {score:g}", score)


def _problem(reference: Any) -> tuple[Any, Any]:
    """(the dataset, its problem). Raises ScoringFault."""
    try:
        told = msgspec.convert(reference, Reference)
        if not 0 <= told.index < told.size:
            raise IndexError(f"problem {told.index} is not among the {told.size}")
        dataset = _dataset(told.task, told.seed, told.size, json.dumps(told.settings, sort_keys=True))
        return dataset, dataset[told.index]
    except (msgspec.ValidationError, IndexError) as fault:
        raise ScoringFault(f"reference: {fault}") from fault


@functools.lru_cache(maxsize=64)
def _dataset(task: str, seed: int, size: int, settings: str) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as fault:
        raise ScoringFault(f"{MISSING} ({fault})") from fault
    if task not in DATASETS:
        raise ScoringFault(f"reference: reasoning-gym has no task {task!r}")
    source = inspect.getsource(inspect.getmodule(DATASETS[task][0]) or DATASETS[task][0])
    if task == "composite" or EVALUATES.search(source):
        raise ScoringFault(
            f"task {task} may evaluate the answer as a program, which no grader does; choose another task"
        )
    try:
        return reasoning_gym.create_dataset(task, seed=seed, size=size, **json.loads(settings))
    except Exception as fault:  # the package asserts what it wants of its settings
        raise ScoringFault(f"task {task} refuses its settings: {type(fault).__name__}: {fault}") from fault
