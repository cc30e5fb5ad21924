"""The section on tools of docs/environments.md is run as it stands there."""

import re
import tomllib
from pathlib import Path
from typing import get_args

from rollout.environments.tools.calls import FORMATS, Call, read_calls
from services.config.tools import ToolConfig
from tests.rollout.conversation.talking import run_config
from tests.rollout.environments.tools.talk import call, talk

PAGE = (Path(__file__).parents[4] / "docs" / "environments.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("\n## Tools\n") : PAGE.index("\n## Agents and environments of others\n")]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in SECTION.splitlines()
    if re.match(r"\| `(?!format`)", line)
]


def test_every_format_is_shown_with_a_call_that_is_read_so() -> None:
    shown = {row[0].strip("`"): row[2].strip("`") for row in ROWS if row[0].strip("`") in FORMATS}
    assert shown.keys() == FORMATS.keys()
    parameters = {"properties": {"a": {"type": "integer"}}}
    for form, text in shown.items():
        (read,) = read_calls(text, form).calls
        assert isinstance(read, Call)
        assert (read.name, read.typed(parameters)) == ("add", {"a": 1}), form


def test_every_type_of_tool_is_in_the_table() -> None:
    kinds = {one.model_fields["type"].default for one in get_args(get_args(ToolConfig)[0])}
    assert kinds == {row[0].strip("`") for row in ROWS} - FORMATS.keys()


def test_the_run_file_of_the_section_is_a_conversation_with_its_tools() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)
    environment = tomllib.loads(block)["environment"]
    config = run_config(**{"turn_s": 60.0, **environment}).environment
    assert config is not None
    assert [tool.type for tool in config.tools] == ["calculator", "python"]
    rest = {name: value for name, value in environment.items() if name not in ("name", "tools", "options")}
    start, turns = talk(
        [one | ({"url": "http://127.0.0.1:9"} if one["type"] == "python" else {}) for one in environment["tools"]],
        call("calculator", expression="12 * 7"),
        call("telescope"),
        "It is 84.",
        environment=rest,
        **environment["options"],
    )
    assert [tool["function"]["name"] for tool in start.tools] == ["calculator", "python"]
    said = [[one["content"] for one in turn.messages] for turn in turns]
    assert said[0] == ["84"]
    assert "telescope" in said[1][0]
    assert (turns[2].done, turns[2].reward) == (True, None)
