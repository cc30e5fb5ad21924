"""JSON that any reader takes: no NaN and no Infinity."""

import json
import math

import pytest

from services.run.json_text import finite, infinite, json_text, read_json


def strictly(text: str) -> object:
    """The value, read as the standard has it."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_become_null_at_any_depth() -> None:
    value = {"a": math.nan, "b": [1.5, math.inf, {"c": -math.inf}], "d": (math.nan, 2), "e": {0: "x"}, "f": True}
    whole = {"a": None, "b": [1.5, None, {"c": None}], "d": [None, 2], "e": {"0": "x"}, "f": True}
    assert strictly(json_text(value)) == whole
    assert strictly(json_text(value, indent=2)) == whole
    assert finite(value)["e"] == {0: "x"}


def test_infinities_are_named() -> None:
    assert infinite({"norm": math.inf, "loss": math.nan, "low": -math.inf, "fine": 1.0, "n": 1}) == {
        "norm": "inf",
        "low": "-inf",
    }


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_files_of_earlier_versions_are_still_read(constant: str) -> None:
    assert read_json(f'{{"loss": {constant}, "step": 1}}') == {"loss": None, "step": 1}
