"""A checkpoint goes on at another ZeRO stage and on another number of ranks, and the next step is the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from learner.engine.state_files import check_same_model
from services.errors import InputError
from tests.learner import elsewhere_trial
from tests.learner.ranks import run_ranks
from tests.learner.tiny import write_tiny_model

STAGES = {"float32": [0, 1, 2, 3], "bfloat16": [1, 2, 3]}
RANKS = {"float32": (1, 2, 1), "bfloat16": (1, 2)}
"""How many ranks write, go on from what is there, and are followed by others."""


@pytest.fixture(scope="module", params=STAGES)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """One rank writes, two write and read what one has written, and in float32 one reads what two have."""
    folder, dtype = tmp_path_factory.mktemp("elsewhere"), request.param
    model = write_tiny_model(folder / "model", tied=True)
    out = folder / "out"
    out.mkdir()
    found: dict[str, Any] = {}
    for ranks in RANKS[dtype]:
        run_ranks(elsewhere_trial.main, model, out, STAGES[dtype], dtype, ranks=ranks)
    for path in out.glob("seen-*.json"):
        found |= json.loads(path.read_text())
    return dtype, found


def test_every_pair_of_stage_and_ranks_was_tried(seen: tuple[str, dict[str, Any]]) -> None:
    dtype, found = seen
    places = {f"stage {stage}, {ranks} ranks" for stage in STAGES[dtype] for ranks in (1, 2)}
    tried = {tuple(pair.split(" -> ")) for pair in found}
    one = {place for place in places if "1 ranks" in place}
    assert {(origin, there) for origin in one for there in places - one} <= tried
    assert {(f"{place}, as before", place) for place in places} <= tried
    assert dtype == "bfloat16" or {(origin, there) for origin in places for there in one} <= tried


def test_the_weights_are_those_that_were_saved(seen: tuple[str, dict[str, Any]]) -> None:
    _, found = seen
    assert {pair: trial["loaded"] for pair, trial in found.items() if trial["loaded"] != 0} == {}


def test_the_next_step_is_the_same(seen: tuple[str, dict[str, Any]]) -> None:
    dtype, found = seen
    close = 1e-3 if dtype == "float32" else 0.3  # of the step: a weight in bfloat16 may round the other way
    for pair, trial in found.items():
        assert trial["moved"] > 1e-3, pair
        assert trial["stepped"] < close * trial["moved"], pair
        for name, value in trial["expected"].items():
            tolerance = 1e-4 if dtype == "float32" else 5e-2
            assert trial["reports"][name] == pytest.approx(value, rel=tolerance, abs=1e-6), (pair, name)


def test_a_model_of_another_shape_is_refused_with_what_differs() -> None:
    with pytest.raises(InputError) as error:
        check_same_model(Path("step-00000040"), {"a": 4, "b": 6, "c": 1}, {"a": 4, "b": 8, "d": 1})
    assert str(error.value).splitlines() == [
        "the checkpoint step-00000040 is of a model of another shape than model.path:",
        "  c: only in the checkpoint",
        "  d: only in the model",
        "  b: 6 elements in the checkpoint, 8 in the model",
        "Put back the model that it was trained with, or choose another name for a new run",
    ]
