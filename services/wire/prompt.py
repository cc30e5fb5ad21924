"""A prompt as it is issued: one credit, one group."""

from typing import Annotated, Any, Literal

import msgspec

from services.wire.codec import Array, record


@record("prompt", 2)
class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One task, and how many responses to sample for it under which parameters."""

    group_id: str
    """Unique in the run: `train-<sequence number>` or `eval-<policy version>-<row>`."""
    sequence_number: int
    """Order of issue among training groups, from 0; row number for evaluation."""
    purpose: Literal["train", "evaluate"]
    row: int
    """Row in the dataset."""
    token_ids: Array
    """int32 [P]: the rendered prompt."""
    group_size: int
    temperature: float
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    seed: int
    """Trajectory i of the group is sampled with seed + i."""
    grader: str
    reference: Any
    """What the grader compares with: any JSON value."""
    options: dict[str, Any]
    pinned_version: int | None = None
    """Sample under exactly this policy version (evaluation)."""


class Trace(msgspec.Struct, frozen=True):
    """What is left of a prompt when a record that holds it cannot be decoded."""

    group_id: str
    sequence_number: Annotated[int, msgspec.Meta(ge=0)]
    purpose: Literal["train", "evaluate"]


def trace(raw: bytes) -> Trace | None:
    """Of the prompt in a record of whatever kind and schema, if it is where every schema had it. For the dead: a number
    that is known is a credit that comes back."""
    try:
        _, _, value = msgspec.msgpack.decode(raw)
        while isinstance(value, dict):
            if "sequence_number" in value:
                return msgspec.convert(value, Trace)
            value = value.get("group") or value.get("prompt")
    except (msgspec.MsgspecError, ValueError, TypeError):  # no msgpack, no record, or no such prompt
        pass
    return None
