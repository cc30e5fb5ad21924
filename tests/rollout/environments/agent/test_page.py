"""The agent on docs/environments.md is run as it stands there."""

import re
import sys
from pathlib import Path

import pytest

from tests.rollout.environments.agent.test_environment import held, text

pytest.importorskip("openai")
PAGE = (Path(__file__).parents[4] / "docs" / "environments.md").read_text(encoding="utf-8")


def test_the_agent_of_the_page_is_trained_unchanged(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python agents.py\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "agents.py").write_text(program, encoding="utf-8")
    group, _ = held("it is seven", "seven", command=[sys.executable, str(tmp_path / "agents.py")], format="hermes")
    for one in group.trajectories:
        assert [turn.restarts for turn in one.turns] == [False, False]
        assert "Say it in one word." in text(one.turns[1].given)
        assert text(one.token_ids) == "it is seven<|im_end|>seven<|im_end|>"
