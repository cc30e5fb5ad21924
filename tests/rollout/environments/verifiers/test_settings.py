"""What is wrong with the settings of `verifiers` is said without the package."""

import sys
from typing import Any

import pytest

from rollout.conversation.check import Tried, check
from rollout.environments import Subject
from rollout.environments.loading import environment_maker
from services.errors import InputError
from tests.rollout.conversation.talking import run_config

SETTINGS = {"taskset": {"id": "sums"}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"python": "no-such-python", "environment": SETTINGS},
            'python = "no-such-python": there is no program "no-such-python" here: install it',
        ),
        ({"python": sys.executable, "environment": {"id": "sums"}}, "names no taskset"),
        ({"python": sys.executable, "environment": SETTINGS, "format": "xml"}, 'format = "xml"'),
        ({"environment": SETTINGS}, "it knows python, environment"),
    ],
)
def test_what_the_user_got_wrong_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        environment_maker(run_config(name="verifiers", options=options))


def test_a_python_without_the_package_is_named_before_the_run() -> None:
    """This one has none: the package needs other versions of the same libraries."""
    options = {"python": sys.executable, "environment": SETTINGS}
    config = run_config(name="verifiers", options=options, turn_s=200.0)
    with pytest.raises(
        InputError,
        match=r'"verifiers" cannot make .*: No module named .verifiers.; install it there: .* -m pip install verifiers',
    ):
        check(config, [Tried(Subject(prompt="?", reference="7", options={}, row=0, seed=0), "environment", "row 0")])
