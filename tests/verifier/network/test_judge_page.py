"""The page that users copy from: every block in it is parsed as a run would parse it."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from services.config.endpoints import EndpointsConfig
from verifier.grader import build_grader
from verifier.graders.judge.grader import Judge
from verifier.graders.remote import Remote

PAGE = (Path(__file__).parents[3] / "docs" / "judge.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def endpoints() -> EndpointsConfig:
    (block,) = blocks("toml")
    return TypeAdapter(EndpointsConfig).validate_python(tomllib.loads(block)["verifier"]["endpoints"])


def test_the_configuration_on_the_page_is_valid() -> None:
    assert set(endpoints()) == {"judge", "local_judge", "proof_checker"}


@pytest.mark.parametrize("block", blocks("json"))
def test_the_options_on_the_page_are_those_of_the_graders_and_name_its_endpoints(block: str) -> None:
    row: dict[str, Any] = json.loads(block)
    classes: dict[str, type[Judge | Remote]] = {"judge": Judge, "remote": Remote}
    assert build_grader(classes[row["grader"]], row["options"]).endpoint in endpoints()


def test_both_graders_are_on_the_page_with_every_option_that_is_not_plain_from_its_name() -> None:
    assert {json.loads(block)["grader"] for block in blocks("json")} == {"judge", "remote"}
    for option in ("votes", "scale", "threshold", "json_mode", "system_message", "max_response_chars", "reward_at"):
        assert option in PAGE
