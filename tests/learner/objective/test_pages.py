"""The pages about objectives name what there is, and quote what was measured."""

import re
import tomllib
from pathlib import Path

import pytest

from services.config.learner import LearnerConfig
from services.config.objectives.registry import OURS

DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = (DOCS / "objectives.md").read_text(encoding="utf-8")
CHOICE = (DOCS / "choosing-an-objective.md").read_text(encoding="utf-8")
MEASURED = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("benchmarks.md", "log.md"))


def test_every_row_of_the_reference_is_of_an_objective_that_exists() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", REFERENCE, flags=re.MULTILINE)
    assert len(rows) >= 21
    assert set(rows) <= set(OURS)
    assert len(rows) == len(set(rows))


def test_every_row_of_the_table_of_choices_takes_an_objective_that_exists() -> None:
    which = CHOICE[CHOICE.index("## Which one") : CHOICE.index("## What was measured at lag")]
    rows = [line.split("|")[2] for line in which.splitlines() if line.startswith("| ") and "`" in line]
    for taken in rows:
        assert re.findall(r"`(\w+)`", taken)[0] in OURS, taken


@pytest.mark.parametrize("figure", sorted(set(re.findall(r"\d\.\d{3}(?: ± \d\.\d{3})?", CHOICE))))
def test_every_figure_was_measured(figure: str) -> None:
    assert figure in MEASURED


@pytest.mark.parametrize("block", re.findall(r"^```toml\n(.*?)^```$", CHOICE, flags=re.MULTILINE | re.DOTALL))
def test_settings_on_the_page_are_valid(block: str) -> None:
    learner = tomllib.loads(block)["learner"]
    config = LearnerConfig.model_validate({"steps": 1, "groups_per_step": 1, **learner})
    assert (config.objective.type, config.advantage.baseline) == ("grpo", "minimum_variance")
