"""What is wrong with an environment is said before a run starts, by the name of the setting."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rollout.conversation.check import check_rewards, check_script
from rollout.conversation.dialogue import Script
from rollout.environments import Start
from rollout.environments.loading import environment_maker
from services.command.environment_check import check_environment, check_environment_name
from services.config.load import load
from services.config.run import RunConfig
from services.datasets.dataset import Problem
from services.errors import InputError
from tests.fakes.tokenizers import tokenizer_of
from tests.rollout.conversation.talking import run_config, script_of

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
ASKED = [{"role": "user", "content": "what is it"}]
EXAMPLE = Path(__file__).parents[3] / "examples" / "guessing" / "guessing.toml"


def wrong(name: str = "guess", **options: Any) -> str:
    with pytest.raises(InputError) as refused:
        environment_maker(run_config(name=name, options=options))
    return str(refused.value)


def test_an_environment_that_cannot_be_made_is_named_with_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        'environment.name = "chess": there is no such environment; the known ones are "agent", "guess", "openenv", "tools", '
        in wrong("chess")
    )
    assert "environment.options" in wrong(gueses=3)
    assert "it knows guesses, higher" in wrong(gueses=3)
    assert "guesses = 0 is less than 1" in wrong(guesses=0)
    places = {"gone": "no_such_package:Game", "none": "json:JSONDecoder"}
    monkeypatch.setattr("rollout.environments.loading.location_of", places.__getitem__)
    assert "no_such_package:Game cannot be imported: ModuleNotFoundError" in wrong("gone")
    assert "has no method `async def reset`" in wrong("none")
    with pytest.raises(InputError, match="there is no such environment"):
        check_environment_name(run_config(name="chess"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_turns": 201}, "environment.max_turns = 201 turns cannot have a token each"),
        ({"max_turn_tokens": 300}, "environment.max_turn_tokens = 300 is more than all messages"),
        ({"max_words_tokens": 1023}, "environment.max_words_tokens = 1023 leaves no room"),
        ({"open_conversations": 2}, "environment.open_conversations = 2 cannot hold one group"),
    ],
)
def test_turns_and_tokens_that_cannot_fit_are_refused_by_the_settings(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run_config(**changes)


def with_turns(config: RunConfig) -> RunConfig:
    """The same with learner.advantage.turns."""
    told = config.model_dump()
    told["learner"]["advantage"] = {"baseline": "mean", "turns": {"discount": 0.9}}
    return RunConfig.model_validate(told)


def test_turns_need_an_environment_that_rewards_them() -> None:
    calculator: dict[str, Any] = {"name": "tools", "tools": [{"type": "calculator", "seconds": 1.0}]}
    with pytest.raises(InputError, match=r'environment\.name = "tools" gives none with these'):
        check_rewards(with_turns(run_config(**calculator)), gives=False)
    assert check_rewards(with_turns(run_config(**calculator)), gives=True) == []
    (unsaid,) = check_rewards(with_turns(run_config()), gives=None)
    assert "does not say whether it gives rewards" in unsaid
    told = run_config().model_dump()
    with pytest.raises(ValueError, match=r"learner.advantage.turns compares .* there is no section \[environment\]"):
        RunConfig.model_validate(
            told | {"environment": None, "learner": told["learner"] | {"advantage": {"baseline": "mean", "turns": {}}}}
        )


def test_rewards_that_nothing_reads_are_a_warning() -> None:
    told = run_config().model_dump()
    (warning,) = check_rewards(
        RunConfig.model_validate(told | {"prompts": told["prompts"] | {"grader": "exact"}}), True
    )
    assert "nothing reads them" in warning
    given = RunConfig.model_validate(told | {"prompts": told["prompts"] | {"grader": "environment"}})
    assert check_rewards(given, True) == []
    assert check_rewards(run_config(), False) == []


def test_a_template_without_tools_is_refused_where_there_are_some() -> None:
    config = run_config()
    assert check_script(config, script_of(config, "chatml"), Start(ASKED, [TOOL])) == []
    with pytest.raises(InputError, match=r"brings tools \(1\), and the chat template of nowhere renders none"):
        check_script(config, script_of(config, "headers"), Start(ASKED, [TOOL]))


def test_a_template_that_rewrites_history_is_a_warning() -> None:
    config = run_config()
    tokenizer = tokenizer_of("forgets thoughts")
    shouting = "{% for m in messages %}{{ m.content }}{% if not loop.last %}!{% endif %}{% endfor %}"
    tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|im_end|>")
    tokenizer.chat_template = shouting
    (warning,) = check_script(config, Script(tokenizer, [1], config.prompts), Start(ASKED))
    assert "renders earlier turns in another way than they were sampled" in warning


def test_turns_that_the_template_alone_makes_too_long_are_counted() -> None:
    config = run_config(max_turns=100)
    with pytest.raises(
        InputError, match=r"environment.max_turns = 100 turns cannot fit model.max_length = 1024: .* begins with"
    ):
        check_script(config, script_of(config), Start(ASKED))


def test_the_check_runs_in_a_process_of_its_own() -> None:
    config = load(EXAMPLE)
    good, bad = (
        Problem(row, "?", number, "environment", place=f"line {row}") for row, number in enumerate(("7", "seven"))
    )
    assert check_environment(config, [good, bad]) == []
    (warning,) = check_environment(config, [bad, good])
    assert "did not begin a conversation about line 1: reset raised ValueError" in warning
    with pytest.raises(
        InputError,
        match=r'(?s)"guess": reset raised ValueError: .* about line 1: all groups of the run would go to `dead`',
    ):
        check_environment(config, [bad])


def test_a_package_that_does_not_import_is_named_with_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed as a package is, and asked as `ratchet config` asks."""
    (tmp_path / "broken_env.py").write_text("import no_such_library\n", encoding="utf-8")
    about = tmp_path / "broken_env-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-env\nVersion: 0.1\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[ratchet.environments]\nbroken = broken_env:Broken\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    config = run_config(name="broken")
    with pytest.raises(
        InputError, match=r'environment.name = "broken": broken_env:Broken cannot be imported: .*no_such_library'
    ):
        check_environment(config, [Problem(0, "?", "7", "environment")])


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ({"type": "telescope"}, "Input tag 'telescope' found using 'type' does not match any of the expected tags"),
        ({"type": "calculator", "precision": 3}, "precision"),
        (
            {"type": "http", "name": "ask", "url": "here", "description": "asks", "parameters": {}},
            '"here" is not a URL',
        ),
    ],
)
def test_a_tool_that_there_is_not_is_refused_by_the_settings(tool: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run_config(name="tools", turn_s=60.0, tools=[tool])


def test_environments_load_without_torch() -> None:
    program = (
        "import sys, rollout.environments.loading, rollout.environments.guess; "
        "print(json.dumps([name for name in ('torch', 'vllm', 'transformers') if name in sys.modules]))"
    )
    said = subprocess.run([sys.executable, "-c", f"import json; {program}"], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == []
