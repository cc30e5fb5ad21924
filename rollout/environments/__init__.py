"""Environments: what the policy talks with. Start reading at environment.py, which says what one is; each is a file here, or a
package of its own."""

from rollout.environments.environment import (
    Environment,
    Message,
    Problem,
    Start,
    Tool,
    Turn,
)

__all__ = ["Environment", "Message", "Problem", "Start", "Tool", "Turn"]
