"""The agents on docs/agents.md are run as they stand there."""

import re
import sys
from pathlib import Path

import pytest

from tests.rollout.environments.agent.test_environment import held, text

pytest.importorskip("openai")
PAGE = (Path(__file__).parents[4] / "docs" / "agents.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```\w+ ([\w.]+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))


def test_the_program_of_the_page_is_trained_unchanged(tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text(BLOCKS["agents.py"], encoding="utf-8")
    group, _ = held("it is seven", "seven", command=[sys.executable, str(tmp_path / "agents.py")], format="hermes")
    for one in group.trajectories:
        assert [turn.restarts for turn in one.turns] == [False, False]
        assert "Say it in one word." in text(one.turns[1].given)
        assert text(one.token_ids) == "it is seven<|im_end|>seven<|im_end|>"


@pytest.mark.parametrize(
    ("guesses", "hints", "reward"),
    [(("12", "3", "7"), ["<", ">"], 1.0), (("x", "7"), ["?"], 1.0), (("3", "x", "12"), [">", "?"], 0.0)],
)
def test_the_function_of_the_page_plays_to_its_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guesses: tuple[str, ...], hints: list[str], reward: float
) -> None:
    (tmp_path / "game.py").write_text(BLOCKS["game.py"], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    group, _ = held(*guesses, function="game:play", give_reference=True, grader="environment")
    for one in group.trajectories:
        assert [text(turn.given).split("\n")[2][0] for turn in one.turns[1:]] == hints
        assert one.reward == reward
