"""The modules that the command line starts as processes, each named once.

The command line imports no other room: a room may be on a host that has nothing else of ours installed. So it knows them
by name, and a test checks that each name is that of a module.
"""

import sys

ROLLOUT = "rollout"
VERIFIER = "verifier"
LEARNER = "learner"
PAGE = "services.page"
REPLAY = "learner.replay_command"
VERIFY = "verifier.offline"
CHECK_REFERENCES = "verifier.offline.check_references"
CHECK_OBJECTIVE = "learner.objective.check"
CHECK_ENVIRONMENT = "rollout.conversation.check"


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this Python, whatever modules the working directory has (-P)."""
    return [sys.executable, "-P", "-m", module, *arguments]


SAFE_PATH = {"PYTHONSAFEPATH": "1"}
"""The environment of what runs so: -P for the Pythons that it starts in turn, as torchrun and vLLM do."""
