"""Asks environments, in a thread of their own, and tells what they may not answer.

An environment is somebody else's program: it raises, hangs, blocks its thread, or answers nonsense. Each of these is an
EnvironmentFault, and nothing else is.
"""

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Generic, Literal, TypeVar, cast

from rollout.conversation.metrics import ENVIRONMENT_SECONDS, REPLACED_THREADS
from rollout.environments import Environment, Message, Start, Subject, Turn
from services.clock import now_s
from services.errors import RatchetError, first_of
from services.metrics import waiting

log = logging.getLogger("ratchet.rollout")

T = TypeVar("T")
Kind = Literal["crashed", "late", "flooded", "malformed"]

SIGN_OF_LIFE_S = 1.0
"""How long a thread may take to show that it is not blocked."""
MOST_SAID = 600
"""Characters of an error that are passed on."""
ROLES = ("user", "tool", "system")


class EnvironmentFault(RatchetError):
    """The environment failed; the policy did nothing wrong."""

    def __init__(self, kind: Kind, what: str) -> None:
        super().__init__(what)
        self.kind = kind


class _Post(Generic[T]):
    """Things for the loop of another thread, which takes all that have come together in one go.

    To wake another thread's loop costs more than most environments take to answer, and conversations often ask together.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[T], None]) -> None:
        """take: what that loop does with each."""
        self.loop = loop
        self._take = take
        self._lock = threading.Lock()
        self._sent: list[T] = []

    def send(self, one: T) -> None:
        """Raises RuntimeError where the loop is closed."""
        with self._lock:
            self._sent.append(one)
            asleep = len(self._sent) == 1
        if asleep:
            self.loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        with self._lock:
            sent = self._sent
            self._sent = []
        for one in sent:
            self._take(one)


class _Call:
    """One call of an environment, and where its outcome goes."""

    def __init__(self, call: Callable[[], Coroutine[Any, Any, Any]], what: str, outcomes: "_Post[_Call]") -> None:
        """outcomes: to the loop that asks. Created in that loop."""
        self._call = call
        self._what = what
        self._outcomes = outcomes
        self._task: asyncio.Task[Any] | None = None  # touched by the environments' loop alone
        self._given_up = False  # likewise
        self.answer: asyncio.Future[Any] = outcomes.loop.create_future()  # touched by the asker's loop alone

    def begin(self) -> None:
        """Called in the environments' loop."""
        if not self._given_up:
            self._task = asyncio.get_running_loop().create_task(_guarded(self._what, self._call))
            self._task.add_done_callback(self._send)

    def give_up(self) -> None:
        """Called in the environments' loop, where nobody waits for the outcome any more."""
        self._given_up = True
        if self._task is not None:
            self._task.cancel()

    def _send(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled():
            with suppress(RuntimeError):  # the asker's loop is closed
                self._outcomes.send(self)

    def hear(self) -> None:
        """Called in the asker's loop: the outcome is there."""
        assert self._task is not None
        fault = self._task.exception()
        if self.answer.done():
            return  # given up meanwhile
        if fault is None:
            self.answer.set_result(self._task.result())
        else:
            self.answer.set_exception(fault)


class EnvironmentThread:
    """An asyncio loop in a daemon thread, in which environments run: one that blocks it holds up no weights and no lease."""

    def __init__(self) -> None:
        self._calls = self._started()
        self._outcomes: _Post[_Call] | None = None  # to the loop that asked last; there is one

    @staticmethod
    def _started() -> _Post[_Call]:
        loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(loop,), name="environments", daemon=True).start()
        return _Post(loop, _Call.begin)

    def stop(self) -> None:
        """End the loop; the thread follows unless it is blocked."""
        self._calls.loop.call_soon_threadsafe(self._calls.loop.stop)

    async def call(self, what: str, call: Callable[[], Coroutine[Any, Any, T]], within_s: float) -> T:
        """The result of `call`, made and awaited in the thread. Raises EnvironmentFault if it raises, or is late.

        Waits for: the environment.
        Until: within_s (environment.turn_s).
        Ended by: its answer or fault, or that time, which is a fault of kind late.
        Metric: ratchet_waiting{room="rollout", awaiting="environment"}; ratchet_rollout_environment_seconds.
        """
        own = asyncio.get_running_loop()
        if self._outcomes is None or self._outcomes.loop is not own:
            self._outcomes = _Post(own, _Call.hear)
        calls = self._calls
        asked = _Call(call, what, self._outcomes)
        calls.send(asked)
        try:
            async with asyncio.timeout(within_s):
                with waiting("rollout", "environment"):
                    return cast(T, await _or_give_up(asked, calls.loop))
        except TimeoutError:
            await self._replace_if_blocked(calls, what)
            raise EnvironmentFault("late", f"{what} took more than environment.turn_s = {within_s:g} s") from None

    async def _replace_if_blocked(self, calls: _Post[_Call], what: str) -> None:
        """Leave a thread behind that runs nothing any more, with the conversations in it, and go on in another.

        Waits for: a sign of life of the thread.
        Until: SIGN_OF_LIFE_S, 1 second.
        Ended by: that sign, or that time; another thread then takes its place.
        Metric: ratchet_rollout_replaced_environment_threads_total.
        """
        alive = asyncio.run_coroutine_threadsafe(asyncio.sleep(0), calls.loop)
        try:
            async with asyncio.timeout(SIGN_OF_LIFE_S):
                await asyncio.wrap_future(alive)
        except TimeoutError:
            if calls is self._calls:  # otherwise another conversation has found it out
                log.error(
                    "%s blocks the thread of the environments; another takes its place. Await, do not block", what
                )
                REPLACED_THREADS.inc()
                self.stop()
                self._calls = self._started()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, and cancel what is still in it."""
    loop.run_forever()
    loop.run_until_complete(_cancel_others())
    loop.close()


async def _or_give_up(asked: _Call, loop: asyncio.AbstractEventLoop) -> Any:
    """The answer; where nobody waits for it any more, the call is cancelled in the loop of the environments."""
    try:
        return await asked.answer
    finally:
        if asked.answer.cancelled():
            with suppress(RuntimeError):  # that loop is closed, and runs nothing
                loop.call_soon_threadsafe(asked.give_up)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _guarded(what: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Awaited in the environments' thread: nothing that they raise may end it, or look like a cancellation of ours."""
    own = asyncio.current_task()
    try:
        return await call()
    except asyncio.CancelledError:
        if own is not None and own.cancelling():
            raise
        raise EnvironmentFault("crashed", f"{what} cancelled itself") from None
    except BaseException as group:
        fault = first_of(group)
        raise EnvironmentFault("crashed", f"{what}{_in_short(fault)}") from fault


class Counterpart:
    """The environment of one conversation, whose answers are looked at before they are used."""

    def __init__(
        self, make: Callable[[], Environment], thread: EnvironmentThread, *, turn_s: float, most_characters: int
    ) -> None:
        """most_characters: of one answer; more is not even rendered."""
        self._make = make
        self._thread = thread
        self._turn_s = turn_s
        self._most_characters = most_characters
        self._environment: Environment | None = None
        self.seconds = 0.0
        """How long the environment has taken so far."""

    async def reset(self, problem: Subject) -> Start:
        """How the conversation begins. Raises EnvironmentFault."""

        async def begin() -> Start:
            self._environment = self._make()
            return await self._environment.reset(problem)

        start = await self._timed("reset", begin)
        if not isinstance(start, Start):
            raise EnvironmentFault("malformed", f"reset returned {_shown(start)}, not a Start")
        self._check(start.messages, "reset")
        if not start.messages or not isinstance(start.tools, Sequence):
            raise EnvironmentFault("malformed", f"reset returned {_shown(start)}, without messages or with odd tools")
        return start

    async def step(self, message: Message) -> Turn:
        """The answer to a message. Raises EnvironmentFault."""
        environment = self._environment
        assert environment is not None
        turn = await self._timed("step", lambda: environment.step(message))
        if not isinstance(turn, Turn) or not isinstance(turn.done, bool):
            raise EnvironmentFault("malformed", f"step returned {_shown(turn)}, not a Turn")
        self._check(turn.messages, "step")
        if turn.history is not None:
            if not isinstance(turn.history, Start) or not turn.history.messages:
                raise EnvironmentFault("malformed", f"step returned the history {_shown(turn.history)}")
            self._check(turn.history.messages, "reset")
        if not turn.done and not turn.messages and turn.history is None:
            raise EnvironmentFault("malformed", "step returned a Turn that is not done and has no messages")
        if turn.reward is not None and not _is_finite_number(turn.reward):
            raise EnvironmentFault(
                "malformed", f"step gave the reward {_shown(turn.reward)}, which is not a finite number"
            )
        return turn

    async def close(self) -> None:
        """Let go of the environment, if there is one. Faults are logged."""
        environment, self._environment = self._environment, None
        if environment is not None:
            try:
                await self._thread.call("close", environment.close, self._turn_s)
            except EnvironmentFault as fault:
                log.warning("an environment was not closed: %s", fault)

    async def _timed(self, call: str, answer: Callable[[], Coroutine[Any, Any, T]]) -> T:
        begun_s = now_s()
        try:
            return await self._thread.call(call, answer, self._turn_s)
        finally:
            seconds = now_s() - begun_s
            self.seconds += seconds
            ENVIRONMENT_SECONDS.labels(call).observe(seconds)

    def _check(self, messages: Sequence[Message], call: str) -> None:
        if not isinstance(messages, Sequence) or isinstance(messages, str):
            raise EnvironmentFault("malformed", f"{call} returned messages {_shown(messages)}, not a list")
        room = self._most_characters
        for message in messages:
            if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                raise EnvironmentFault("malformed", f"{call} returned {_shown(message)}, not a message with a text")
            # A conversation may begin with examples, in which the assistant speaks.
            if message.get("role") not in (*ROLES, *(("assistant",) if call == "reset" else ())):
                raise EnvironmentFault("malformed", f"{call} returned a message of {_shown(message.get('role'))}")
            room -= len(message["content"])
        if room < 0:
            raise EnvironmentFault("flooded", f"{call} said {self._most_characters - room} characters")


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _in_short(fault: BaseException) -> str:
    """What a call raised, in words that follow its name. What is ours says itself what it is."""
    said = f": {fault}"[:MOST_SAID] if str(fault) else ""
    return said if isinstance(fault, RatchetError) and said else f" raised {type(fault).__name__}{said}"


def _shown(value: object) -> str:
    try:
        return repr(value)[:120]
    except Exception:  # of somebody else's class
        return f"a {type(value).__name__}"
