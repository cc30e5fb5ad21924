"""The benchmark of the head runs, and measures what it says."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import head


def test_growth_is_that_of_the_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["head", "--tokens", "2048", "--vocabulary", "8000", "--hidden", "8", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--out", str(tmp_path)])
    head.main()
    found = json.loads((tmp_path / "head.json").read_text(encoding="utf-8"))["medians"]
    logits = 4 * 2048 * 8000
    assert 2 * logits < found[head.WHOLE]["growth"] < 5 * logits
    assert found[head.HEAD]["growth"] < 2.5 * logits
