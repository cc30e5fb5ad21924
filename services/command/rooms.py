"""The modules that the command line starts as processes, each named once.

The command line imports no other room: a room may be on a host that has nothing else of ours installed. So it knows them
by name, and a test checks that each name is that of a module.
"""

import sys

ROLLOUT = "rollout"
VERIFIER = "verifier"
LEARNER = "learner"
VERIFY = "verifier.offline"
CHECK_REFERENCES = "verifier.offline.check_references"


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this Python."""
    return [sys.executable, "-m", module, *arguments]
