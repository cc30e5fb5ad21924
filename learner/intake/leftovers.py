"""What an earlier start of this run, or another run of its name, has left on the streams.

The stream server may outlive the checkpoints: they were deleted, the folder is another one, or an older checkpoint is gone
back to. Then groups that the ledger waits for were settled and are on no stream any more, and would be waited for without
end.
"""

from collections.abc import Sequence

from learner.intake.ledger import Ledger
from services.errors import InputError
from services.numbers import count
from services.run import made_of
from services.run.made_of import MadeOf
from services.streams import Stream
from services.streams.redis_connection import RedisConnection
from services.streams.scripts import EVEN_IF_FULL
from services.wire.prompt import Trace, trace

NOTE = EVEN_IF_FULL + "return redis.call('SET', KEYS[1], ARGV[1])"


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


def lost_groups(ledger: Ledger, issued: int, streams: Sequence[Stream]) -> list[int]:
    """Sequence numbers that were issued and are not settled, and whose groups are on none of the streams.

    issued: as the stream server counts. streams: in the order that groups go through, so that one that moves meanwhile is
    seen.
    """
    missing = set(ledger.unsettled(issued))
    return sorted(missing - groups_on(streams).keys()) if missing else []


class Leftovers:
    """Decides whether a run without a checkpoint may take over what is on the streams of its name."""

    def __init__(self, connection: RedisConnection, run: str) -> None:
        self._connection = connection
        self._run = run
        self._key = f"ratchet:{run}:made_of"

    def check(self, made: MadeOf, *, issued: int, lost: Sequence[int], folder: str) -> None:
        """For a run without a checkpoint. Raises InputError if the streams hold what another run has left.

        issued: groups that were issued under this name. lost: those of them that are on no stream, because a checkpoint that
        is not here held them as settled. folder: where the checkpoints of this run would be.
        """
        before = self._connection.execute("GET", self._key)
        known = before is not None and before.decode() == made_of.digest(made)
        if issued == 0 or known or (before is None and not lost):
            return
        why = (
            f"{len(lost)} of them are gone"
            if before is None
            else "it was made of another model, other problems or another seed"
        )
        raise InputError(
            f"Redis at {self._connection.address} holds the queues of an earlier run named {self._run}: {count(issued)} groups "
            f"were issued, and {why}, but there is no checkpoint in {folder}. Choose another name, or the runs_folder that has "
            f"the checkpoints; or, if that run is not needed, delete its keys: "
            f"redis-cli --scan --pattern 'ratchet:{self._run}:*' | xargs redis-cli del"
        )

    def note(self, made: MadeOf) -> None:
        """Write down what the groups from now on are made of."""
        self._connection.run_script(NOTE, [self._key], [made_of.digest(made)])
