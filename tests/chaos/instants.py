"""The orders that a process of a chaos run may find: files in the run's folder."""

import re
from pathlib import Path

PACE = "pace"
"""A file of this name has the seconds that a group takes."""
AT_A_SWAP = "at a swap"
HAND_OVERS = "before handing over", "after handing over"
INSTANTS = {
    "learner": (
        "after issuing a prompt",
        "before a step is settled",
        "after a step is settled",
        "after a version is published",
        "before a checkpoint has its name",
        "after a checkpoint has its name",
        "before acknowledging",
        "after acknowledging",
    ),
    "rollout": (*HAND_OVERS, AT_A_SWAP),
    "verifier": HAND_OVERS,
}
"""Room -> the places at which its processes can be told to die."""


def order(folder: Path, service: str, instant: str) -> Path:
    """The file that tells this service to die at that instant; it removes it before it does."""
    return folder / f"{service}-{instant.replace(' ', '-')}"


def room_of(service: str) -> str:
    """The room of a service: learner, rollout or verifier."""
    return re.sub(r"-\d+$", "", service)
