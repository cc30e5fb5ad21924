"""A prompt as it is issued: one credit, one group."""

from typing import Any, Literal

import msgspec

from services.wire.codec import Array, record


@record("prompt", 1)
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
    issued_version: int
    """Policy version of the learner when the prompt was issued."""
    pinned_version: int | None = None
    """Sample under exactly this policy version (evaluation)."""
