"""Commands to one Redis server that outlive lost connections; the only file that imports redis.

A command is sent again when its answer was lost, so only commands that may run twice are allowed: reads, plain
overwrites (SET, HSET, EXPIRE), XREADGROUP (entries whose delivery was lost stay among the consumer's own pending
entries), and scripts written to recognize their own repeat, as all of ours are. Commands that add to what is there are
refused by name. The connection also waits for a server that is loading its data, running a long script or unable to
write its file, all within one deadline.
"""

import hashlib
import logging
import math
import re
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, parse_url
from redis.retry import Retry

from services.clock import now_s
from services.errors import InputError, StreamError
from services.metrics import waiting

Argument = str | bytes | int | float
log = logging.getLogger("ratchet")

OLDEST_SERVER = (6, 2)  # XPENDING with IDLE, XAUTOCLAIM
LONGEST_TRY_S = 10.0  # without an answer by then, the command is tried again on a new connection
LONGEST_PAUSE_S = 1.0
LONGEST_LAST_TRIES_S = 3.0
WARN_AFTER_S = 0.8  # until then a lost connection is made again silently
ADDING = {"XADD", "INCR", "INCRBY", "DECR", "DECRBY", "APPEND", "LPUSH", "RPUSH", "LPOP", "RPOP", "HINCRBY", "ZINCRBY"}
PASSING = {"LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "MISCONF", "UNBLOCKED"}
"""Refusals of a server that will accept the command later. UNBLOCKED: the stream that was read from is gone, or the server
became a replica."""
IN_SCRIPT = re.compile(r"@user_script: ?\d+: -([A-Z]+) (.*)")
ADVICE = {
    "OOM": "Its memory is full: raise maxmemory, or lower groups_per_step or max_lag: less is then in flight.",
    "NOPERM": "Give this user the rights to run scripts and to read and write keys that begin with ratchet:.",
    "MISCONF": "It cannot write its file: free disk space where the server keeps its data.",
    "WRONGTYPE": "A key holds something else: choose another run name, or delete the key.",
}


class CommandRefused(StreamError):
    """The server answered with an error. `code` is its first word (NOGROUP, OOM, ERR, ...) and `text` the others."""

    def __init__(self, address: str, command: str, code: str, text: str) -> None:
        advice = ADVICE.get(code, "Run the same version of ratchet in every service, and Redis 6.2 or later.")
        super().__init__(f"Redis at {address} refused {command}: {code} {text}. {advice}")
        self.code = code
        self.text = text


class ServerFull(CommandRefused):
    """The server has no memory for what was asked (its maxmemory); it will have once something is acknowledged or deleted."""


@dataclass(frozen=True)
class ServerMemory:
    """What a Redis server says of its memory."""

    used_bytes: int
    limit_bytes: int
    """Its maxmemory; without one, the memory of its host. 0: it says neither."""


class RedisConnection:
    """One server and any number of threads: each command in progress has its own socket. Not for use across a fork."""

    def __init__(self, url: str, *, deadline_s: float = 30.0) -> None:
        """Connects at the first command.

        url: redis://, rediss:// or unix://, with the password in it. deadline_s: seconds for each command, all tries
        together (deadlines.redis_s). Raises InputError when the URL cannot be used.
        """
        self.deadline_s = deadline_s
        self.lost_answers = 0
        """Times that an answer was lost: the server may have done what nobody knows of. It only grows."""
        self._try_s = min(LONGEST_TRY_S, deadline_s / 2)
        self._last_s = math.inf  # when trying again ends for every command
        self._idle: list[Any] = []  # of redis-py's connections, which have no types
        self._idle_guard = threading.Lock()
        try:
            self._options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
            self._class = self._options.pop("connection_class", Connection)
            self.address = _address(self._options)
            self._put(self._new())
        except (ValueError, TypeError):
            # The cause may show part of the password: one with a slash in it is taken for a port.
            raise InputError(
                "the scheme, the port or an option of the Redis URL cannot be used. It looks like "
                "redis://:PASSWORD@HOST:6379/0 or unix://:PASSWORD@/path/to/socket, with reserved characters in the "
                "password as %XX."
            ) from None

    def check(self) -> None:
        """Raises InputError for a wrong password, a server that is too old or one that may drop streams, and StreamError when
        it cannot be reached."""
        # PING first, because a server answers INFO even while it loads its data.
        _, server, memory = self.execute_many([("PING",), ("INFO", "server"), ("INFO", "memory")])
        version = _facts(server)["redis_version"]
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
            raise InputError(f"Redis at {self.address} is version {version}; use 6.2 or later.")
        facts = _facts(memory)
        policy = facts.get("maxmemory_policy", "noeviction")
        if facts.get("maxmemory", "0") != "0" and policy.startswith(
            "allkeys-"
        ):  # a stream is one key, evicted as a whole
            raise InputError(
                f"Redis at {self.address} deletes whole streams when its memory is full (maxmemory-policy {policy}). Set "
                "maxmemory-policy noeviction, or use another server: this one is meant for a cache."
            )

    def memory(self) -> "ServerMemory":
        """How much memory the server uses, and how much it may use."""
        facts = _facts(self.execute("INFO", "memory"))
        limit = int(facts.get("maxmemory", "0")) or int(facts.get("total_system_memory", "0"))
        return ServerMemory(used_bytes=int(facts["used_memory"]), limit_bytes=limit)

    def execute(self, *command: Argument, block_s: float | None = None) -> Any:
        """The raw answer: bytes, int, None or lists of them. Raises CommandRefused, StreamError or InputError.

        block_s: seconds that a blocking command may stay silent, on top of the deadline.
        """
        return self.execute_many([command], block_s=block_s)[0]

    def execute_many(self, commands: Sequence[Sequence[Argument]], *, block_s: float | None = None) -> list[Any]:
        """The answers to several commands sent in one round trip, not as a transaction.

        The first refusal is raised after all commands have run.
        """
        names = [str(command[0]) for command in commands]
        for name in names:
            if name.upper() in ADDING:
                raise ValueError(f"{name} may not run twice: put it into a script that recognizes its own repeat")
        answers = self._until_answered(commands, block_s or 0.0)
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, redis.ResponseError):
                raise _refusal(self.address, name, answer) from answer
        return answers

    def run_script(self, lua: str, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """Run a script that may run twice; its text is sent only when the server does not know it yet."""
        digest = hashlib.sha1(lua.encode(), usedforsecurity=False).hexdigest()
        try:
            return self.execute("EVALSHA", digest, len(keys), *keys, *args)
        except CommandRefused as refusal:
            if refusal.code != "NOSCRIPT":
                raise
            return self.execute("EVAL", lua, len(keys), *keys, *args)

    def transaction(
        self, commands: Sequence[Sequence[Argument]], lua: str, keys: Sequence[str], args: Sequence[Argument] = ()
    ) -> list[Any]:
        """The answers to some commands and then a script, which the server runs as one. It may run twice: the script has to
        undo what the commands add in a second run.

        Raises CommandRefused; with the code EXECABORT nothing has run.
        """
        script = ("EVAL", lua, len(keys), *keys, *args)  # not by its digest: were that unknown, the rest would have run
        *_, answers = self._until_answered([("MULTI",), *commands, script, ("EXEC",)], 0.0)
        if isinstance(answers, redis.ResponseError):
            raise _refusal(self.address, "EXEC", answers) from answers
        for command, answer in zip([*commands, script], answers, strict=True):
            if isinstance(answer, redis.ResponseError):
                raise _refusal(self.address, str(command[0]), answer) from answer
        return list(answers)

    def close(self) -> None:
        with self._idle_guard:
            while self._idle:
                self._idle.pop().disconnect()

    def hurry(self) -> None:
        """Stop trying in LONGEST_LAST_TRIES_S, for commands under way and all to come: the process is asked to end, and what it
        holds others take over. For signal handlers too."""
        self._last_s = min(self._last_s, now_s() + LONGEST_LAST_TRIES_S)

    def _until_answered(self, commands: Sequence[Sequence[Argument]], block_s: float) -> list[Any]:
        """The answers, refusals among them; a command without a usable answer is sent again.

        Waits for: the Redis server.
        Until: deadlines.redis_s, plus block_s; after `hurry`, LONGEST_LAST_TRIES_S.
        Ended by: an answer, a refused password (InputError) or the deadline (StreamError).
        Metric: ratchet_waiting{room="streams", awaiting="Redis"}, after the first try.
        """
        end_s = now_s() + self.deadline_s + block_s
        answers = self._try_once(commands, end_s, block_s)
        if not isinstance(answers, Exception):
            return answers
        with waiting("streams", "Redis"):
            return self._try_again(commands, end_s, block_s, reason=answers)

    def _try_again(
        self, commands: Sequence[Sequence[Argument]], end_s: float, block_s: float, *, reason: Exception
    ) -> list[Any]:
        begun_s, tries, pause_s, warned = end_s - self.deadline_s - block_s, 1, 0.0, False
        while True:
            if now_s() >= min(end_s, self._last_s):
                raise StreamError(
                    f"Redis at {self.address} gave no usable answer for {now_s() - begun_s:.1f} s ({tries} tries, "
                    f"last: {_words(reason)}). {_advice(reason)}"
                ) from reason
            if not warned and now_s() - begun_s >= WARN_AFTER_S:
                log.warning("Redis at %s: %s; trying again for %.0f s", self.address, _words(reason), end_s - now_s())
                warned = True
            time.sleep(max(0.0, min(pause_s, end_s - now_s())))
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2 or 0.02)
            tries += 1
            answers = self._try_once(commands, end_s, block_s)
            if not isinstance(answers, Exception):
                if warned:
                    log.info("Redis at %s answers again after %.1f s", self.address, now_s() - begun_s)
                return answers
            reason = answers

    def _try_once(self, commands: Sequence[Sequence[Argument]], end_s: float, block_s: float) -> list[Any] | Exception:
        """The answers, or why the server has to be asked again: it did not answer, or refused for a reason that passes. Raises
        InputError when it does not accept the password."""
        try:
            answers = self._try(commands, min(self._try_s, end_s - now_s()), block_s)
        except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as fault:
            raise InputError(
                f"Redis at {self.address} did not accept the password ({fault}). Put the right one into the "
                "environment variable RATCHET_REDIS_URL or into redis.url."
            ) from None
        except redis.exceptions.InvalidResponse as fault:
            raise InputError(
                f"what listens at {self.address} is not a Redis server: {str(fault)[:80]}; correct the environment variable "
                "RATCHET_REDIS_URL or redis.url"
            ) from None
        except redis.ResponseError as fault:  # while connecting: answers to commands come back as values
            raise InputError(
                f"Redis at {self.address} refused the connection: {fault}. Correct the environment variable RATCHET_REDIS_URL or "
                "redis.url; what follows the last slash is the number of the database"
            ) from None
        except (redis.ConnectionError, redis.TimeoutError, OSError) as fault:
            if (refused := _certificate_fault(fault)) is not None:
                raise InputError(
                    f"the certificate of Redis at {self.address} is not accepted ({refused.verify_message}); set "
                    "redis.ca_file to the certificate of the authority that signed it, and the address to a host that it names"
                ) from None
            self.close()  # the idle connections are as dead as this one
            return fault
        for answer in answers:
            if isinstance(answer, redis.ResponseError) and _code_and_text(answer)[0] in PASSING:
                self.close()  # a server that became read-only has a successor: resolve the name again
                refusal: Exception = answer
                return refusal
        return answers

    def _try(self, commands: Sequence[Sequence[Argument]], try_s: float, block_s: float) -> list[Any]:
        """One try on one socket. Refusals come back as values, so that the socket stays in step with the server."""
        connection = self._take()
        answers: list[Any] = []
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            for _ in commands:
                try:
                    answers.append(connection.read_response(timeout=max(try_s, 0.01) + block_s))
                except redis.ResponseError as refusal:
                    answers.append(refusal)
        except BaseException:
            self.lost_answers += 1
            connection.disconnect()
            raise
        self._put(connection)
        return answers

    def _new(self) -> Any:
        # One try, no health checks, no greeting: retries are decided above, where the deadline is known.
        fixed: dict[str, Any] = {
            "socket_timeout": self._try_s,
            "socket_connect_timeout": self._try_s,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
        }
        return self._class(**{**self._options, **fixed})

    def _take(self) -> Any:
        with self._idle_guard:
            if self._idle:
                return self._idle.pop()
        return self._new()

    def _put(self, connection: Any) -> None:
        with self._idle_guard:
            self._idle.append(connection)


def _address(options: dict[str, Any]) -> str:
    if "path" in options:
        return f"unix://{options['path']}"
    return f"{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"


def _certificate_fault(fault: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What is wrong with the server's certificate, if that is where the fault comes from."""
    while fault is not None:
        if isinstance(fault, ssl.SSLCertVerificationError):
            return fault
        fault = fault.__cause__ or fault.__context__
    return None


def _facts(answer: bytes) -> dict[str, str]:
    """The lines `name:value` of what INFO says."""
    return dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)


def _refusal(address: str, command: str, answer: redis.ResponseError) -> CommandRefused:
    code, text = _code_and_text(answer)
    return (ServerFull if code == "OOM" else CommandRefused)(address, command, code, text)


def _code_and_text(refusal: redis.ResponseError) -> tuple[str, str]:
    """The code and the text of a refusal.

    redis-py cuts the code off the texts of the errors it knows and leaves it in the others. Redis 6 wraps what failed
    inside a script: `ERR Error running script (...): @user_script:5: @user_script: 5: -OOM command not allowed`.
    """
    text = str(refusal).rstrip(".")
    if inner := IN_SCRIPT.search(text):
        return inner[1], inner[2]
    code = getattr(refusal, "status_code", None)
    if code is None:
        code, _, text = text.partition(" ")
    return code.lstrip("-"), text


def _words(reason: Exception) -> str:
    """Why a command has to be sent again."""
    return " ".join(_code_and_text(reason)) if isinstance(reason, redis.ResponseError) else str(reason)


def _advice(reason: Exception) -> str:
    """What to do about a server that has no usable answer for that reason."""
    if isinstance(reason, redis.ResponseError) and (advice := ADVICE.get(_code_and_text(reason)[0])):
        return advice
    return "Check that it is running and can be reached from this host; if it is only slow, raise deadlines.redis_s."
