"""What the learner waits for before a step, in a file that it writes again and again for `ratchet up` and `ratchet status`."""

from pathlib import Path

import msgspec

from services.numbers import count

STREAMS = {"prompts": "to be sampled", "trajectories": "to be scored", "scored": "to be collected"}
"""Stream -> what the groups on it wait for."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of the next step, as far as they are there."""

    step: int
    """The step that they are for, from 1."""
    usable: int
    needed: int
    unusable: str
    """What came to nothing since the last group that counted, in words; empty: nothing."""
    outstanding: int
    """Groups that are issued and not settled."""
    confirmed: bool
    """Whether the replicas sample under one and the same policy version. No prompt is issued until they do."""
    held: int = 0
    """Groups that have arrived and wait for an older one (learner.order = "dispatch")."""
    held_by: int | None = None
    """Sequence number of that one; None: none is held."""
    depths: dict[str, int] = {}
    """Stream -> groups that have not got beyond it: claimed ones included but for `scored`."""

    def said(self) -> str:
        """In words, for one line."""
        facts = [f"{count(self.usable)} of {count(self.needed)} there"]
        if self.unusable:
            facts.append(f"nothing to train on in the others: {self.unusable}")
        if self.held:
            facts.append(f"{count(self.held)} wait for train-{self.held_by}, which was issued before them")
        if not self.confirmed:
            facts.append("no prompts are issued: the replicas have not confirmed the weights")
        elif not self.outstanding:
            facts.append("none is outstanding")
        else:
            places = [f"{count(self.depths[name])} {what}" for name, what in STREAMS.items() if self.depths.get(name)]
            facts.append(f"{count(self.outstanding)} outstanding" + (f" ({', '.join(places)})" if places else ""))
        return "; ".join(facts)


def write_waiting(path: Path, waiting: Waiting) -> None:
    """Replace the file in one step."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_bytes(msgspec.json.encode(waiting))
    draft.rename(path)


def read_waiting(path: Path) -> Waiting | None:
    """What the file says; None when there is no file, or when another version of Ratchet wrote it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Waiting)
    except (OSError, msgspec.MsgspecError):
        return None
