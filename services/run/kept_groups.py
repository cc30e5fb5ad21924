"""The newest groups of a run with what its steps saw of each token, one file for each learner step.

A file is a line of JSON for each group, each line compressed by itself, so that its size is known as it is written. Files appear
whole; nothing reads them but the page.
"""

import gzip
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

FILE = re.compile(r"step-(\d{8})\.jsonl\.gz")
STEPS_AT_LEAST = 20
"""A step may take this part of the whole, so that one with long responses does not push out all that were before it."""


class KeptWords(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment said within a conversation, and gave for the turn that came of it."""

    before: int
    """Tokens of the response that stand before it."""
    text: str
    restarts: bool
    """Whether it is a whole history, with which the sequence begins again."""
    reward: float | None


class KeptResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One response of a kept group. Lists are as long as the response has tokens."""

    token_ids: list[int]
    pieces: list[str]
    """The text of each token by itself; a part of a character shows as U+FFFD."""
    text: str
    """The response as the verifier read it."""
    finish_reason: str
    verdict: str
    reward: float | None
    detail: str
    """Why the verifier says so."""
    grading_s: float
    spans: list[tuple[int, int, int]]
    """(policy version, first token, end) of each stretch that one policy version sampled."""
    behavior_logp: list[float | None]
    current_logp: list[float | None] | None
    """None where the response did not reach the loss."""
    one_way_weight: list[float | None] | None
    """As `current_logp`; 0 at tokens that do not count."""
    words: list[KeptWords] = []
    """One for each turn of a conversation, in order."""


class KeptGroup(msgspec.Struct, frozen=True, kw_only=True):
    """One group that a learner step consumed."""

    step: int
    """The step, from 1. Its lag is measured from the version before it, which is one less."""
    group_id: str
    row: int
    replica_id: str
    verifier_id: str
    grader: str
    reference: Any
    temperature: float
    dropped: str | None
    """Why the group did not reach the loss; None: it did."""
    prompt: str
    prompt_tokens: int
    responses: list[KeptResponse]


def write_step(folder: Path, step: int, groups: Iterable[KeptGroup], limit_bytes: int) -> int:
    """Write as many of the groups as fit, then delete the oldest files until the folder is within its limit.

    Returns the number of groups written. groups: made one by one, so that what does not fit is not made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    room, parts = limit_bytes // STEPS_AT_LEAST, list[bytes]()
    for group in groups:
        line = gzip.compress(msgspec.json.encode(group) + b"\n", 6)
        if len(line) > room:
            break
        room -= len(line)
        parts.append(line)
    draft = folder / ".draft"
    draft.write_bytes(b"".join(parts))
    draft.rename(folder / f"step-{step:08d}.jsonl.gz")
    sizes = {path: path.stat().st_size for path in kept_steps(folder)}
    total = sum(sizes.values())
    for path, size in sizes.items():
        if total <= limit_bytes:
            break
        path.unlink()
        total -= size
    return len(parts)


def kept_steps(folder: Path) -> list[Path]:
    """The files of the steps that are kept, the oldest first."""
    return sorted(path for path in folder.glob("step-*.jsonl.gz") if FILE.fullmatch(path.name))


def read_step(path: Path) -> list[KeptGroup]:
    """The groups of one step; empty when the file is gone or another version of Ratchet wrote it."""
    try:
        lines = gzip.decompress(path.read_bytes()).splitlines()
        return [msgspec.json.decode(line, type=KeptGroup) for line in lines]
    except (OSError, EOFError, msgspec.MsgspecError):
        return []
