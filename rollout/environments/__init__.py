"""Environments: what the policy talks with. Start reading at environment.py, which says what one is; each is a file here, or a
package of its own."""

from rollout.environments.environment import (
    Environment,
    Message,
    Start,
    Subject,
    Tool,
    Turn,
)

__all__ = ["Environment", "Message", "Start", "Subject", "Tool", "Turn"]
