"""Problems of reasoning-gym and their own scores. What needs the real package is skipped without it (extra `reasoning-gym`)."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.config.prompts import SourceConfig
from services.datasets.dataset import load_problems
from services.errors import InputError
from verifier.grader import ScoringFault
from verifier.graders.reasoning_gym import MISSING, ReasoningGym

installed = importlib.util.find_spec("reasoning_gym") is not None
needs_package = pytest.mark.skipif(not installed, reason="reasoning-gym is not installed")


def source(task: str = "chain_sum", **settings: Any) -> SourceConfig:
    asked = {"type": "reasoning_gym", "task": task, "size": 5, "seed": 3, "settings": settings}
    return SourceConfig.model_validate({"name": "gym", "source": asked})


@pytest.mark.skipif(installed, reason="reasoning-gym is installed")
def test_without_the_package_source_and_grader_say_how_to_get_it() -> None:
    assert ReasoningGym.unavailable() == MISSING
    with pytest.raises(InputError, match=r"ratchet\[reasoning-gym\]"):
        load_problems(source())
    with pytest.raises(ScoringFault, match=r"ratchet\[reasoning-gym\]"):
        ReasoningGym().check({"task": "chain_sum", "seed": 0, "size": 1, "index": 0})


def test_a_process_has_imported_the_package_before_its_first_item(tmp_path: Path) -> None:
    """What it takes to import does not count against the deadline of an item, and later processes are forked with it."""
    (tmp_path / "reasoning_gym").mkdir()
    for name in ("__init__", "factory"):
        (tmp_path / "reasoning_gym" / f"{name}.py").touch()
    asked = "import sys; from verifier.graders.reasoning_gym import ReasoningGym as G; G.warm_up(); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "reasoning_gym.factory" in said.split()
    ReasoningGym.warm_up()  # also without the package, of which the first reference says that it is missing


@pytest.mark.parametrize("reference", ["7", {"task": "chain_sum"}, {"task": 3, "seed": 0, "size": 1, "index": 0}])
def test_a_reference_that_is_none_is_an_error(reference: Any) -> None:
    with pytest.raises(ScoringFault, match=r"reference: "):
        ReasoningGym().check(reference)


@needs_package
def test_problems_are_made_and_their_answers_scored() -> None:
    import reasoning_gym

    problems = load_problems(source(max_terms=3))
    made = reasoning_gym.create_dataset("chain_sum", seed=3, size=5, max_terms=3)
    assert [one.prompt for one in problems] == [made[index]["question"] for index in range(5)]
    assert {one.grader for one in problems} == {"reasoning_gym"}
    grader = ReasoningGym()
    for index, one in enumerate(problems):
        answer = made[index]["answer"]
        assert grader.score(answer, one.reference).reward == 1.0
        assert grader.score(f"so <answer> {answer} </answer>.", one.reference).correct
        wrong = grader.score("<answer>no number</answer>", one.reference)
        assert (wrong.correct, wrong.reward) == (False, 0.0)


@needs_package
def test_what_cannot_be_scored_is_an_error() -> None:
    def told(task: str, **changes: Any) -> dict[str, Any]:
        return {"task": task, "seed": 0, "size": 1, "index": 0, **changes}

    for reference, said in (
        (told("number_sorting"), "may evaluate the answer as a program"),
        (told("composite"), "may evaluate the answer as a program"),
        (told("no_such_task"), "no task"),
        (told("chain_sum", settings={"min_terms": -3}), "refuses its settings"),
        (told("chain_sum", index=7), "reference"),
    ):
        with pytest.raises(ScoringFault, match=said):
            ReasoningGym().check(reference)
    with pytest.raises(InputError, match="no_such_task"):
        load_problems(source("no_such_task"))
    with pytest.raises(InputError, match="min_terms"):
        load_problems(source(min_terms=-3))
