"""Which run a server's keys belong to, and which start of its learner may write to them.

Two keys: `identity` says which run folder the data are of, and `learner` which start of the learner holds them. Every script
that the learner runs on its streams begins with a look at the second (`FencedConnection`), in one atomic step. So a learner that
was suspended or cut off, and was replaced meanwhile, can no longer issue, claim, hand over or acknowledge anything: it ends with
a sentence. A lease, renewed in a thread, says whether the holder is alive; it decides who may become the next holder, never who
is.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from services.clock import now_s, sleep
from services.errors import InputError, RatchetError, Retry
from services.streams.redis_connection import Argument, CommandRefused, RedisConnection
from services.streams.scripts import EVEN_IF_FULL

log = logging.getLogger("ratchet")

# KEYS identity, learner, lease; ARGV identity, holder, lease in ms, 1 to replace a holder whose lease has not run out
# -> {what came of it, the value in the way}. May run twice.
TAKE = (
    EVEN_IF_FULL
    + """
local run = redis.call('GET', KEYS[1])
if run and cjson.decode(run).run_id ~= cjson.decode(ARGV[1]).run_id then return {'run', run} end
local holder, left_ms = redis.call('GET', KEYS[2]), redis.call('PTTL', KEYS[3])
if left_ms > tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[3], ARGV[3]) end -- the server's clock was set back
if holder and holder ~= ARGV[2] and ARGV[4] ~= '1' and left_ms > 0 then return {'held', holder} end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SET', KEYS[3], '1', 'PX', ARGV[3])
return {'taken', run or ''}
"""
)
# KEYS learner, lease; ARGV holder, lease in ms -> 1 renewed | 0 not the holder
RENEW = (
    EVEN_IF_FULL
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
return 1
"""
)
# KEYS learner, lease; ARGV holder
GIVE_UP = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[2]) end return 1"
# In front of a script, whose last key and last argument it takes away.
GUARD = """
local holder = redis.call('GET', table.remove(KEYS))
if holder ~= table.remove(ARGV) then return redis.error_reply('FENCED ' .. (holder or '')) end
"""
FENCE_KEYS = ("identity", "learner", "learner_lease")
PAUSE_S = 0.5
RENEWALS = 3
"""Renewals within a lease."""


class LearnerReplaced(RatchetError):
    """Another learner of the run has taken over."""

    retry: ClassVar[Retry] = "never"


class Identity(msgspec.Struct, frozen=True):
    """Which run some data are of."""

    run_id: str
    folder: str
    host: str

    def said(self) -> str:
        return f"the run of {self.folder} on {self.host} ({self.run_id[:8]})"


class Holder(msgspec.Struct, frozen=True):
    """A start of the learner."""

    folder: str
    host: str
    pid: int
    since_unix_s: float
    name: str
    """Different for each start."""

    def said(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since_unix_s))
        return f"process {self.pid} on {self.host}, folder {self.folder}, since {since}"


def identity_of(file: Path, folder: Path) -> Identity:
    """The identity that is kept in this file of a run folder; a new one, if there is none. Raises InputError if it is damaged."""
    if file.exists():
        run_id = file.read_text(encoding="utf-8", errors="replace").strip()
        if len(run_id) != 32 or not run_id.isalnum():
            raise InputError(
                f"{file} does not hold the name of a run: {run_id[:40]!r}; delete it to begin with a new one"
            )
    else:
        run_id = uuid.uuid4().hex
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.draft")
        draft.write_text(run_id + "\n", encoding="utf-8")
        draft.rename(file)
    return Identity(run_id, str(folder), socket.gethostname())


def holder_now(folder: Path) -> Holder:
    """This process, as a holder."""
    return Holder(str(folder), socket.gethostname(), os.getpid(), time.time(), uuid.uuid4().hex)


def found_identity(connection: RedisConnection, run: str) -> Identity | None:
    """Which run the server's data of this name are of; None: it does not say."""
    raw = connection.execute("GET", f"ratchet:{run}:identity")
    return None if raw is None else msgspec.json.decode(raw, type=Identity)


class Fence:
    """One start of the learner at one server."""

    def __init__(
        self, connection: RedisConnection, run: str, identity: Identity, holder: Holder, lease_s: float
    ) -> None:
        """identity: from the run folder. lease_s: seconds after which a holder that does not renew may be replaced."""
        self._connection = connection
        self._run = run
        self._identity = identity
        self._holder = holder
        identity_key, key, lease_key = (f"ratchet:{run}:{name}" for name in FENCE_KEYS)
        self._identity_key = identity_key
        self.key = key
        self._lease_key = lease_key
        self.token = msgspec.json.encode(holder).decode()
        self._lease_s = lease_s
        self._closing = threading.Event()

    def take(self) -> None:
        """Become the holder, and renew the lease until `close`.

        Raises InputError if the server has the data of another run, or if another learner of this run is alive. One that
        had the same folder on the same host is not: the caller has the folder's lock.

        Waits for: the lease of another learner to run out.
        Until: lease_s, and a second more.
        Ended by: the end of its lease, or the deadline, which is an InputError.
        Metric: none; /metrics is served afterwards.
        """
        end_s = now_s() + self._lease_s + 1.0
        while (other := self._try()) is not None:
            if now_s() >= end_s:
                raise InputError(
                    f"another learner of the run {self._run} is at work: {other.said()}. Stop it first, or choose another "
                    "name for this run"
                )
            sleep(PAUSE_S)
        threading.Thread(target=self._renew, name="learner-lease", daemon=True).start()

    def _try(self) -> Holder | None:
        """Become the holder now; the one in the way, if there is one."""
        other = self._asked(replace=False)
        if other is None or (other.host, other.folder) != (self._holder.host, self._holder.folder):
            return other
        return self._asked(replace=True)

    def _asked(self, *, replace: bool) -> Holder | None:
        keys = [self._identity_key, self.key, self._lease_key]
        arguments: list[Argument] = [
            msgspec.json.encode(self._identity),
            self.token,
            int(self._lease_s * 1000),
            int(replace),
        ]
        what, value = self._connection.run_script(TAKE, keys, arguments)
        if what == b"run":
            other = msgspec.json.decode(value, type=Identity)
            raise InputError(
                f"Redis at {self._connection.address} holds the data of another run named {self._run}: {other.said()}; this is "
                f"{self._identity.said()}. Choose another name or another server; or, if that run is not needed, delete its "
                f"keys: redis-cli --scan --pattern 'ratchet:{self._run}:*' | xargs redis-cli del"
            )
        return msgspec.json.decode(value, type=Holder) if what == b"held" else None

    def refused(self, holder: str) -> None:
        """A script was refused. holder: who has the keys now; empty: nobody, because the server was emptied.

        Raises LearnerReplaced, or InputError when the keys are of another run; returns once this start has them again.
        """
        other = self._asked(replace=False) if not holder else msgspec.json.decode(holder, type=Holder)
        if other is not None:
            raise LearnerReplaced(
                f"another learner has taken over the run {self._run}: {other.said()}. This one ({self._holder.said()}) ends; "
                "nothing that it did since its last checkpoint counts"
            )
        log.warning(
            "Redis at %s had lost the keys of %s; the learner has taken them again", self._connection.address, self._run
        )

    def close(self) -> None:
        """Let the next learner begin at once."""
        self._closing.set()
        self._connection.run_script(GIVE_UP, [self.key, self._lease_key], [self.token])

    def _renew(self) -> None:
        """Renew the lease, until `close`.

        Waits for: time to pass.
        Until: a third of lease_s each time.
        Ended by: the time, or `close`.
        Metric: none; nobody waits for it.
        """
        while not self._closing.wait(self._lease_s / RENEWALS):
            try:
                self._connection.run_script(RENEW, [self.key, self._lease_key], [self.token, int(self._lease_s * 1000)])
            except RatchetError as fault:
                log.debug("the learner's lease is not renewed: %s", fault)


class FencedConnection:
    """A connection whose scripts do nothing once another learner holds the run."""

    def __init__(self, connection: RedisConnection, fence: Fence) -> None:
        self._connection = connection
        self._fence = fence
        self.address = connection.address

    @property
    def lost_answers(self) -> int:
        """As the connection's."""
        return self._connection.lost_answers

    def execute(self, *command: Argument, block_s: float | None = None) -> Any:
        """As the connection's: reads are not fenced."""
        return self._connection.execute(*command, block_s=block_s)

    def transaction(
        self, commands: Sequence[Sequence[Argument]], lua: str, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> list[Any]:
        """Not for a learner: what comes before the script would not be fenced. Raises CommandRefused, as if nothing had run."""
        raise CommandRefused(self.address, "EXEC", "EXECABORT", "a fenced connection runs scripts alone")

    def run_script(self, lua: str, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """As the connection's. Raises LearnerReplaced, and nothing has changed, when another start is the holder."""
        while True:
            try:
                return self._connection.run_script(GUARD + lua, [*keys, self._fence.key], [*args, self._fence.token])
            except CommandRefused as refusal:
                if refusal.code != "FENCED":
                    raise
                self._fence.refused(refusal.text)
