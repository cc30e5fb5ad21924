"""The reference pages are what the code says, and the code says it in sentences."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_origin

import pytest
from pydantic import BaseModel

from scripts.reference import all_settings, sentences

ROOT = Path(__file__).parent.parent
SETTINGS = list(all_settings())
METRIC = re.compile(r"^\| `(ratchet_\w+)` \| \w+ \| [^|]*\| (.*) \|$", re.MULTILINE)
METRICS = METRIC.findall((ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"))
UNITS = {
    "seconds": "[Ss]econds",
    "tokens": "[Tt]okens",
    "steps": "[Ss]teps",
    "nats": "nats",
    "ratio": r"0\.\.1",
    "groups": "[Gg]roups",
    "items": "[Rr]esponses",
    "sequences": "[Ss]equences",
}
"""Last word of a metric's name -> what its help has to say."""


def test_the_pages_are_what_the_code_says() -> None:
    """In a process of its own, because other tests make metrics too."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.reference", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.__name__)
def test_every_setting_has_a_sentence(settings: type[BaseModel]) -> None:
    told = sentences(settings)
    assert is_sentence(" ".join((settings.__doc__ or "").split())), f"{settings.__name__} has no docstring of sentences"
    for name, field in settings.model_fields.items():
        if name == "type" and get_origin(field.annotation) is Literal:
            continue  # the docstring of the class says it
        assert is_sentence(told.get(name, "")), f"{settings.__name__}.{name} says {told.get(name)!r}"


def test_every_metric_has_a_sentence_with_its_unit() -> None:
    assert len(METRICS) > 50
    for name, meaning in METRICS:
        assert is_sentence(meaning), f"{name} says {meaning!r}"
        unit = UNITS.get(name.removesuffix("_total").rpartition("_")[2], "")
        assert re.search(unit, meaning), f"{name} does not say its unit, {unit}: {meaning!r}"


def is_sentence(text: str) -> bool:
    """Begins as a sentence does, not in the middle of the name above it, and ends as one."""
    return bool(re.match(r"[A-Z0-9`]", text)) and text.endswith(".") and not re.match(r"(Of|That|As|Its) ", text)
