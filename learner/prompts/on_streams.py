"""Which training groups are on the streams, when the learner starts."""

from collections.abc import Sequence

from services.streams import Stream
from services.wire.prompt import Trace, trace


def groups_on(streams: Sequence[Stream]) -> dict[int, Trace]:
    """The training groups on these streams by sequence number. streams: in the order that groups go through, so that one that
    moves meanwhile is seen."""
    found: dict[int, Trace] = {}
    for stream in streams:
        depth = stream.depth()
        for payload in stream.peek(depth.waiting + depth.pending):
            prompt = trace(payload)
            if prompt is not None and prompt.purpose == "train":
                found[prompt.sequence_number] = prompt
    return found
