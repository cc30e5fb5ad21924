"""What no conversation can be held with is named before the run: by its setting, its value, and what to do."""

import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rollout.conversation.check import Tried, check
from rollout.environments import Subject
from services.config.run import RunConfig
from services.errors import InputError
from tests.rollout.conversation.talking import run_config
from tests.rollout.environments.tools.talk import service

HERE = "tests.rollout.environments.test_bad_counterparts"
ROW = Tried(Subject(prompt="what is it", reference="7", options={}, row=0, seed=0), "environment", "data.jsonl line 1")


def refused(config: RunConfig, grader: str = "environment") -> str:
    """What the check says, in place of the run."""
    with pytest.raises(InputError) as said:
        check(config, [Tried(ROW.subject, grader, ROW.place)])
    return str(said.value)


def agent(**options: Any) -> RunConfig:
    return run_config(name="agent", attempts=1, turn_s=30.0, options=options)


def with_tool(**tool: Any) -> RunConfig:
    return run_config(name="tools", attempts=1, turn_s=60.0, tools=[tool])


def graded_by(config: RunConfig, grader: str) -> RunConfig:
    told = config.model_dump()
    return RunConfig.model_validate(told | {"prompts": told["prompts"] | {"grader": grader}})


def test_a_program_that_fails_at_once_is_named_with_what_it_said() -> None:
    program = ["sh", "-c", "echo no such model >&2; exit 3"]
    said = refused(agent(command=program))
    assert said.startswith('environment.name = "agent": reset: the agent `sh -c ')
    assert "ended with exit code 3: no such model\n" in said
    assert said.endswith(
        "No conversation can be begun about data.jsonl line 1: all groups of the run would go to `dead`"
    )
    assert "it wrote nothing to standard error" in refused(agent(command=["sh", "-c", "exit 3"]))
    assert "without a word to the policy: it has to ask" in refused(agent(command=["true"]))


def test_a_program_that_hangs_is_named_with_the_setting_that_bounds_it() -> None:
    config = run_config(name="agent", attempts=3, turn_s=0.2, options={"command": ["sleep", "30"]})
    assert ": reset took more than environment.turn_s = 0.2 s" in refused(config)


async def gives_nothing(problem: Mapping[str, Any], base_url: str, api_key: str) -> None:
    import httpx

    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        headers = {"Authorization": f"Bearer {api_key}"}
        body = {"model": "m", "messages": problem["messages"]}
        await client.post(f"{base_url}/chat/completions", json=body, headers=headers)


async def fails_at_its_end(problem: Mapping[str, Any], base_url: str, api_key: str) -> None:
    await gives_nothing(problem, base_url, api_key)
    raise KeyError("answer")


def test_an_agent_without_the_reward_that_its_grader_passes_on_is_refused() -> None:
    said = refused(agent(function=f"{HERE}:gives_nothing"))
    assert "ended a conversation about data.jsonl line 1 without a reward" in said
    assert "have it give one in every case, also 0, or name another grader" in said


def test_an_agent_that_fails_at_what_no_policy_may_say_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.conversation.check.check_script", lambda *_: [])
    monkeypatch.setattr("rollout.conversation.check.Script.of", lambda _: None)
    (said,) = check(agent(function=f"{HERE}:fails_at_its_end"), [ROW])
    assert 'failed when the policy said "Ans9wer words." (crashed): step raised KeyError' in said


def test_tools_that_give_no_rewards_are_refused_where_their_rewards_are_all_that_counts() -> None:
    config = graded_by(with_tool(type="calculator"), "environment")
    assert (
        'the grader "environment" passes on the rewards of an environment, and environment.name = "tools"'
        in refused(config)
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"guesses": "three"}, "environment.options.guesses = 'three': input should be a valid integer"),
        ({"higher": 3}, "environment.options.higher = 3: input should be a valid string"),
        (
            {"heeded": 0.5},
            'environment.options: "guess" refuses them: heeded = 0.5 for each of 4 guesses is not between 0 and 1',
        ),
        ({"heeded": -0.1}, "heeded = -0.1 for each"),
        ({"heeded": float("nan")}, "heeded = nan for each"),
        ({"guesses": -1}, "guesses = -1 is less than 1"),
        ({"pattern": "("}, 'environment.options: "guess" refuses them: pattern = "(" is not a regular expression: '),
    ],
)
def test_an_option_of_another_type_or_beyond_its_bounds_is_named(options: dict[str, Any], said: str) -> None:
    assert said in refused(run_config(name="guess", options=options))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_calls": 0}, "max_calls = 0"),
        ({"max_characters": -5}, "max_characters = -5"),
        ({"called": float("inf")}, "called = inf is not a finite number"),
    ],
)
def test_a_limit_of_the_tools_beyond_its_bounds_is_named(options: dict[str, Any], said: str) -> None:
    assert said in refused(run_config(name="tools", tools=[{"type": "calculator", "seconds": 1.0}], options=options))


def mcp(*command: str, **changes: Any) -> RunConfig:
    pytest.importorskip("mcp")
    return with_tool(type="mcp", command=list(command), **changes)


def test_a_server_of_tools_that_ends_or_hangs_at_its_start_is_named() -> None:
    said = refused(mcp("sh", "-c", "exit 3"))
    assert "environment.tools.0.command = ['sh', '-c', 'exit 3']: the server did not list its tools: " in said
    assert "run it by hand to see why" in said
    said = refused(mcp("sleep", "31.4159", seconds=0.5))
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"31.4159" in read(path)]  # it was killed
    assert "the server did not list its tools within seconds = 0.5; raise that if it only starts slowly" in said


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""


def test_a_server_without_tools_and_a_tool_of_a_name_that_is_taken_are_named(tmp_path: Path) -> None:
    none = tmp_path / "none.py"
    none.write_text("from mcp.server import MCPServer\nMCPServer('none').run('stdio')\n", encoding="utf-8")
    assert f"environment.tools.0.command = ['{sys.executable}', '{none}']: the server has no tools" in refused(
        mcp(sys.executable, str(none))
    )
    small = str(Path(__file__).parent / "tools" / "mcp_server.py")
    tools = [{"type": "calculator", "name": "note"}, {"type": "mcp", "command": [sys.executable, small]}]
    said = refused(run_config(name="tools", turn_s=60.0, tools=tools))
    assert 'two tools are named "note"; give one another name, or leave it out (only)' in said


def test_a_server_of_tools_that_is_away_is_named() -> None:
    pytest.importorskip("mcp")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/mcp"
    said = refused(with_tool(type="mcp", url=url, seconds=10.0))
    assert f'environment.tools.0.url = "{url}": the server did not list its tools: ' in said
    assert "correct the address, or start it" in said


def test_what_listens_there_and_speaks_something_else_is_named() -> None:
    with page(200, "<html>Welcome</html>") as url:
        said = refused(run_config(name="openenv", attempts=1, options={"url": url}))
    assert f'environment.options.url = "{url}" answers /schema with what is not JSON' in said
    with page(404, "") as url:
        said = refused(run_config(name="openenv", attempts=1, options={"url": url}))
    assert f'environment.options.url = "{url}": no server of OpenEnv can be reached there: ' in said


@contextmanager
def page(status: int, said: str, **headers: str) -> Iterator[str]:
    """The URL of a web server that answers every GET and HEAD so."""
    with service(lambda *_: (status, said.encode()), **{"Content-Type": "text/html", **headers}) as url:
        yield url.removesuffix("/call")


def http(url: str) -> RunConfig:
    schema = {"type": "object", "properties": {}}
    return with_tool(type="http", name="ask", url=url, description="asks", parameters=schema, seconds=5.0)


def test_a_service_that_is_away_sends_on_or_shows_a_page_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rollout.conversation.check.check_script", lambda *_: [])
    monkeypatch.setattr("rollout.conversation.check.Script.of", lambda _: None)

    def warned(url: str) -> list[str]:
        return check(http(url), [Tried(ROW.subject, "exact", ROW.place)])

    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    (said,) = warned(url)
    assert f'environment.tools.0.url = "{url}" does not answer now: ' in said
    with page(302, "", Location="https://elsewhere/") as url:
        (said,) = warned(url)
    assert f'environment.tools.0.url = "{url}" sends on to https://elsewhere/' in said
    with page(200, "<html>Welcome</html>") as url:
        (said,) = warned(url)
    assert "answers with a page for a browser (HTML)" in said
    with page(405, "") as url:  # a service that takes POST alone
        assert warned(url) == []
