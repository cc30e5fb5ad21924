"""What can be said of a prompt in a record that cannot be decoded."""

import msgspec
import pytest

from services.wire.codec import encode
from services.wire.prompt import Prompt, Trace, trace
from services.wire.score import ScoredGroup
from tests.learner.tiny import scored_group

SCORED: ScoredGroup = scored_group(0, rewards=[1.0, 0.0])
PROMPT: Prompt = SCORED.group.prompt
TRACE = Trace(PROMPT.group_id, PROMPT.sequence_number, "train", PROMPT.row, PROMPT.group_size)


@pytest.mark.parametrize("record", [PROMPT, SCORED.group, SCORED])
def test_a_prompt_is_found_in_every_record_that_holds_one(record: msgspec.Struct) -> None:
    assert trace(encode(record)) == TRACE


def test_a_prompt_of_another_schema_is_found() -> None:
    assert trace(msgspec.msgpack.encode(("prompt", 99, msgspec.to_builtins(PROMPT) | {"news": 1}))) == TRACE


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode(("prompt", 1)),
        msgspec.msgpack.encode(("prompt", 1, {"group": None})),
        msgspec.msgpack.encode(("prompt", 1, {"group_id": "a", "sequence_number": -1, "purpose": "train"})),
    ],
)
def test_nothing_is_said_of_what_holds_no_prompt(raw: bytes) -> None:
    assert trace(raw) is None
