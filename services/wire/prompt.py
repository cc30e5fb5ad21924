"""A prompt as it is issued: one credit, one group."""

from typing import Annotated, Any, Literal

import msgspec

from services.wire.codec import Array, record

AGAIN = "again-"


@record("prompt", 3)
class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One problem, and how many responses to sample for it with which parameters."""

    group_id: str
    """Unique in the run: `train-<sequence number>` or `eval-<policy version>-<row>`; `again-<sequence number>` for a dead group
    that somebody sent round again."""
    sequence_number: int
    """Place in the order of issue, from 0: of the run's training groups, or of the prompts of one evaluation."""
    purpose: Literal["train", "evaluate"]
    row: int
    """Row in the dataset, from 0; the learner's log has it when the group dies."""
    source: str = ""
    """Name of the source of the problem; empty where there is only one."""
    token_ids: Array
    """int32 [P]: the rendered prompt."""
    group_size: int
    temperature: float
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    stop: tuple[str, ...] = ()
    """Texts that end a response; they stay in it."""
    keep_special_tokens: bool = False
    """Whether the verifier reads special tokens, but for the one that ended the response."""
    seed: int
    """Trajectory i of the group is sampled with seed + i."""
    grader: str
    reference: Any
    """What the grader compares responses with: any JSON value."""
    options: dict[str, Any]
    """The grader's options."""
    problem: Any = None
    """The problem before it was rendered, a text or chat messages: what an environment starts from. None without one."""


def sent_again(prompt: Prompt) -> Prompt:
    """The prompt of a dead training group, to be sampled once more. The learner trains on it although it had given it up."""
    return msgspec.structs.replace(prompt, group_id=f"{AGAIN}{prompt.sequence_number}")


def is_sent_again(prompt: Prompt) -> bool:
    """Whether the prompt is that of `sent_again`; any other group that comes back after its death is a repeat."""
    return prompt.group_id.startswith(AGAIN)


class Trace(msgspec.Struct, frozen=True):
    """What is left of a prompt when a record that holds it cannot be decoded."""

    group_id: str
    sequence_number: Annotated[int, msgspec.Meta(ge=0)]
    purpose: Literal["train", "evaluate"]
    row: int = -1
    """-1: the record does not say."""
    group_size: int = 0
    source: str = ""


def trace(raw: bytes) -> Trace | None:
    """What can be said of the prompt in a record of any kind and schema; None when it is not where every schema had it.

    For groups that go to `dead`: a sequence number that is known is a credit that comes back.
    """
    try:
        _, _, value = msgspec.msgpack.decode(raw)
        while isinstance(value, dict):
            if "sequence_number" in value:
                return msgspec.convert(value, Trace)
            if isinstance(inner := value.get("payload"), bytes) and not value.get("prompt"):
                return trace(inner)  # a dead group that could not be decoded
            value = value.get("group") or value.get("prompt")
    except (msgspec.MsgspecError, ValueError, TypeError):
        return None  # not msgpack, not a record, or without a prompt; the caller says that the credit is lost
    return None
