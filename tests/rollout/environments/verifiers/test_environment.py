"""An environment of the real package `verifiers` is trained in unchanged: it runs in a Python of its own and asks the policy."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rollout.conversation.check import Tried, check
from rollout.conversation.conversations import ConversationFailed, HeldGroup
from rollout.environments import Subject
from services.errors import InputError
from services.wire.trajectory import check_turns
from tests.rollout.conversation.talking import message, run_config
from tests.rollout.environments.agent.test_environment import hold, text
from tests.rollout.environments.other_pythons import python_of

PYTHON = python_of("verifiers")
HERE = str(Path(__file__).parent)
AGENT = {"runtime": {"type": "subprocess"}}
SETTINGS = {"taskset": {"id": "ratchet_sums"}, "agent": AGENT}


def options(**changes: Any) -> dict[str, Any]:
    return {"python": PYTHON, "environment": SETTINGS, "variables": {"PYTHONPATH": HERE}} | changes


def held(*texts: str, row: int = 0, **changes: Any) -> HeldGroup:
    group, _ = hold("verifiers", *texts, row=row, grader="environment", **options(**changes))
    return group


def test_an_episode_is_a_conversation_with_the_tokens_that_were_sampled_and_its_reward() -> None:
    group = held("it is seven", "seven")
    assert "3 + 4?" in text(group.prompt.token_ids)
    for one in group.trajectories:
        check_turns(one)
        assert [turn.restarts for turn in one.turns] == [False, False]
        assert one.token_ids.numpy().tolist() == message("it is seven") + message("seven")
        assert "In one word." in text(one.turns[1].given)
        assert (one.reward, one.finish_reason) == (1.0, "stop")


def test_another_row_is_another_task() -> None:
    group = held("it is seven", "seven", row=1)
    assert "1 + 1?" in text(group.prompt.token_ids)
    assert {one.reward for one in group.trajectories} == {0.25}


@pytest.mark.parametrize(
    ("row", "said"), [(2, "this task cannot be judged"), (9, "the taskset has 3 tasks, and row 9 of the dataset")]
)
def test_what_fails_there_is_a_fault_and_no_reward(row: int, said: str) -> None:
    with pytest.raises(ConversationFailed, match=said):
        held("it is seven", "seven", row=row)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"taskset": {"id": "no_such"}, "agent": AGENT}, "ModuleNotFoundError: taskset 'no_such' not found"),
        ({"taskset": {"id": "ratchet_sums"}, "agent": {"runtime": {"type": "prime"}}}, "not authenticated with prime"),
    ],
)
def test_what_the_user_got_wrong_is_named_before_the_run(settings: dict[str, Any], said: str) -> None:
    config = run_config(name="verifiers", options=options(environment=settings), turn_s=200.0)
    with pytest.raises(InputError, match=f'(?s)"verifiers" cannot make .*: .*{said}'):
        check(config, [Tried(Subject(prompt="?", reference="7", options={}, row=0, seed=0), "environment", "row 0")])


def test_its_tasks_are_written_as_a_dataset() -> None:
    command = [sys.executable, "-m", "rollout.environments.verifiers.rows", "--python", PYTHON, "--most", "2"]
    written = subprocess.run(
        [*command, "--environment", json.dumps(SETTINGS)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": HERE},
    )
    assert [json.loads(line) for line in written.stdout.splitlines()] == [
        {"prompt": "3 + 4?", "reference": "seven"},
        {"prompt": "1 + 1?", "reference": "two"},
    ]
