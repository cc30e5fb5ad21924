"""runs/NAME/step_in_hand.json: the groups that the learner has in the midst of a step, and those suspected of having killed it.

The learner writes it before each step computes and again when the step has ended. So a start that finds a step in it knows that
the process before it was killed by, or during, that step. What follows from that is decided in learner/control/suspicion.py.
"""

import os
from pathlib import Path

import msgspec

from services.errors import InputError


class StepInHand(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says. Groups are sequence numbers."""

    step: int = 0
    """The step that has begun last: the policy version that it makes."""
    groups: tuple[int, ...] = ()
    """What that step trains on; empty once it has ended."""
    excused: bool = False
    """Whether the learner was asked to stop: that it does not come to the step's end then says nothing about the groups."""
    deaths: dict[int, int] = {}
    """Group -> steps with it that killed the learner, since the last step with it that came to its end."""
    parts: tuple[tuple[int, ...], ...] = ()
    """Suspected groups: the next steps train on one part each, in this order, and on nothing else."""
    alone: dict[int, int] = {}
    """Suspected group -> steps with it alone that killed the learner."""
    killed: int = 0
    """Steps since the suspicion began that killed the learner, before the first that came to its end."""
    survived: bool = False
    """Whether a step has come to its end since the suspicion began."""
    condemned: tuple[int, ...] = ()
    """Groups that killed the learner alone, as often as it takes; no step has shown yet that it survives without them."""
    convicted: tuple[int, ...] = ()
    """Groups that are to go to the stream `dead`."""

    @property
    def is_trial(self) -> bool:
        """Whether a step is in hand that tries suspected groups."""
        return bool(self.groups and self.parts)

    @property
    def found_out(self) -> tuple[object, ...]:
        """All but the step in hand: it changes with every death that says something new."""
        return self.deaths, self.parts, self.alone, self.killed, self.condemned, self.convicted


def read_step_in_hand(path: Path) -> StepInHand:
    """What the file says; nothing where there is none. Raises InputError if it cannot be read as such a file."""
    try:
        said = path.read_bytes().strip()
        return msgspec.json.decode(said, type=StepInHand) if said else StepInHand()
    except FileNotFoundError:
        return StepInHand()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise InputError(f"{path} cannot be read: {fault}; delete it, and nothing but a suspicion is lost") from fault


class StepInHandFile:
    """The one writer of the file. It is written in place, so that no step needs room on a disk that has become full."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._length = os.fstat(self._descriptor).st_size

    def write(self, state: StepInHand, *, durable: bool) -> None:
        """Replace what it says. durable: return once it is on the disk."""
        encoded = msgspec.json.encode(state)
        os.pwrite(self._descriptor, encoded.ljust(self._length), 0)
        self._length = max(self._length, len(encoded))
        if durable:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
