"""What is wrong with the settings of `openenv`, and a server that is away, are said without the package."""

from typing import Any

import pytest

from rollout.conversation.conversations import ConversationFailed
from rollout.environments.loading import environment_maker
from services.errors import InputError
from tests.rollout.conversation.talking import run_config
from tests.rollout.environments.agent.test_environment import hold


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "localhost:8000"}, 'url = "localhost:8000" is not one; give http://HOST:PORT or ws://HOST:PORT'),
        ({"url": "http://localhost:8000", "format": "xml"}, 'format = "xml"'),
        ({}, "it knows url, action, observation"),
    ],
)
def test_what_the_user_got_wrong_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        environment_maker(run_config(name="openenv", options=options))


def test_a_server_that_is_away_is_a_fault() -> None:
    with pytest.raises(
        ConversationFailed,
        match=r'crashed: reset: environment.options.url = "http://127.0.0.1:9": no server of OpenEnv .* start it',
    ):
        hold("openenv", "hello", url="http://127.0.0.1:9")
