"""Samples one group of conversations. Each turn is a request of its own to the engine, whose cache still has what came before.

Between two turns a conversation waits for its environment and holds no room in the engine. A change of weights between two
turns, or within one, is no matter: each turn has its own version spans, and what was read before is read again under the weights
that answer it.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
import numpy as np

from rollout.conversation.answers import Counterpart, EnvironmentFault, EnvironmentThread
from rollout.conversation.dialogue import Dialogue, Script
from rollout.conversation.metrics import (
    CONVERSATION_SECONDS,
    FAULTS,
    OPEN,
    READ_TOKENS,
    REWRITTEN,
    TURNS,
    count_tools,
)
from rollout.environments import Environment, Subject
from services.clock import now_s
from services.config.environment import EnvironmentConfig
from services.config.run import RunConfig
from services.errors import RatchetError, first_of
from services.wire.codec import Array
from services.wire.prompt import Prompt
from services.wire.trajectory import FinishReason, Trajectory, Turn, VersionSpan

log = logging.getLogger("ratchet.rollout")

InEngine = Callable[[Prompt], Awaitable[tuple[Trajectory, ...]]]
"""Samples the responses to one prompt, as InferenceEngine.sample does."""
CHARACTERS_A_TOKEN = 32
"""More characters than this for each token that an environment may say are not even tokenised."""
CLOSING_S = 1.0
SECOND_ATTEMPT_S = 0.2
"""Pause before a conversation is begun again, twice as long before each further time."""


class ConversationFailed(RatchetError):
    """The environment failed in every attempt of one conversation; its group cannot be scored."""


class HeldGroup(NamedTuple):
    """One prompt's conversations, each of them to its end."""

    prompt: Prompt
    """With the tokens that the first conversation began with."""
    trajectories: tuple[Trajectory, ...]


class _Limits(NamedTuple):
    """In tokens."""

    context: int
    """What the engine reads and says in one sequence (model.max_length)."""
    words: int
    """What the environment says between two messages (environment.max_words_tokens)."""
    row: int
    """All sequences of one conversation together, which the learner lays into one row (learner.row_tokens)."""


class Conversations:
    """Those of one replica."""

    def __init__(self, config: RunConfig, script: Script, make: Callable[[], Environment]) -> None:
        """config: with a section [environment]. make: makes the environment of one conversation."""
        assert config.environment is not None
        self._settings: EnvironmentConfig = config.environment
        self._limits = _Limits(config.model.max_length, config.most_words_tokens, config.learner.row_tokens)
        self._script = script
        self._make = make
        self._thread = EnvironmentThread()
        self._room = asyncio.Semaphore(config.rollout.max_concurrent_sequences)
        self._closing: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Let go of the environments and of their thread.

        Waits for: environments that are being closed.
        Until: 1 second (CLOSING_S).
        Ended by: the last of them, or that time.
        Metric: none; the replica is ending.
        """
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSING_S)
        for task in self._closing:
            task.cancel()
        self._thread.stop()

    async def sample(self, prompt: Prompt, in_engine: InEngine) -> HeldGroup:
        """Hold prompt.group_size conversations. Raises ConversationFailed, and what in_engine raises.

        Waits for: the engine and the environment, in turn.
        Until: it is cancelled; environment.max_turns, turn_s and attempts bound the environment's part.
        Ended by: the last conversation, or the first that fails in every attempt.
        Metric: ratchet_rollout_open_conversations.
        """
        OPEN.inc(prompt.group_size)
        try:
            async with asyncio.TaskGroup() as group:
                members = [
                    group.create_task(self._member(prompt, index, in_engine)) for index in range(prompt.group_size)
                ]
        except BaseExceptionGroup as faults:
            raise first_of(faults) from faults
        finally:
            OPEN.dec(prompt.group_size)
        held = [member.result() for member in members]
        begun = held[0].begun
        trajectories = tuple(one.trajectory(begun) for one in held)
        return HeldGroup(msgspec.structs.replace(prompt, token_ids=Array.of(begun, "<i4")), trajectories)

    async def _member(self, prompt: Prompt, index: int, in_engine: InEngine) -> "_Held":
        """One conversation, begun again while its environment fails.

        Waits for: the pause before another attempt.
        Until: 0.2 s (SECOND_ATTEMPT_S), doubled with each.
        Ended by: that time.
        Metric: ratchet_rollout_environment_faults_total.
        """
        attempts = self._settings.attempts
        for attempt in range(attempts):
            counterpart = Counterpart(
                self._make,
                self._thread,
                turn_s=self._settings.turn_s,
                most_characters=CHARACTERS_A_TOKEN * self._limits.context,
            )
            begun_s = now_s()
            try:
                held = await self._hold(prompt, index, attempt, counterpart, in_engine)
            except EnvironmentFault as fault:
                FAULTS.labels(fault.kind).inc()
                log.warning("conversation %s/%d, attempt %d: %s", prompt.group_id, index, attempt + 1, fault)
                last = fault
            else:
                CONVERSATION_SECONDS.observe(now_s() - begun_s)
                TURNS.observe(len(held.turns))
                return held
            finally:
                self._close(counterpart)
            if attempt + 1 < attempts:
                await asyncio.sleep(SECOND_ATTEMPT_S * 2**attempt)
        raise ConversationFailed(
            f"the environment failed in {attempts} attempts (environment.attempts) of conversation {index}; the last: "
            f"{last.kind}: {last}"
        )

    def _close(self, counterpart: Counterpart) -> None:
        """Nobody waits for it: a close that hangs costs its own deadline and no conversation."""
        task = asyncio.create_task(counterpart.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _hold(
        self, prompt: Prompt, index: int, attempt: int, counterpart: Counterpart, in_engine: InEngine
    ) -> "_Held":
        """One conversation to its end. Raises EnvironmentFault."""
        settings = self._settings
        start = await counterpart.reset(_subject(prompt))
        dialogue = Dialogue(self._script, start.messages, start.tools)
        held = _Held(dialogue.token_ids)
        if self._left(prompt, held) < 1:
            raise EnvironmentFault(
                "flooded", f"it begins with {len(held.begun)} tokens, and model.max_length = {self._limits.context}"
            )
        for number in range(settings.max_turns):
            most = min(self._left(prompt, held), settings.max_turn_tokens or prompt.max_tokens)
            if most < 1:
                held.finish_reason = "length"
                break
            asked = msgspec.structs.replace(
                prompt,
                group_id=f"{prompt.group_id}/{index}",
                token_ids=Array.of(held.context, "<i4"),
                group_size=1,
                max_tokens=most,
                seed=_seed(prompt.seed + index, number, attempt),
            )
            async with self._room:
                (message,) = await in_engine(asked)
            held.hear(message)
            if message.finish_reason != "stop":
                break
            said, ended = self._script.said(message.token_ids.numpy().tolist())
            tokens = {"read": len(asked.token_ids), "said": len(message.token_ids)}
            answer = await counterpart.step({"role": "assistant", "content": said, "tokens": tokens})
            count_tools(answer, start)
            held.reward(answer.reward)
            if answer.done:
                if prompt.grader == "environment" and held.rewards == 0:
                    raise EnvironmentFault(
                        "malformed", 'it is done and gave no reward, and the grader is "environment"'
                    )
                break
            if number + 1 == settings.max_turns:
                held.finish_reason = "turns"
                break
            if answer.history is None:
                given, restarts = dialogue.go_on(said, ended, answer.messages)
            else:
                given, restarts = dialogue.begin_again(answer.history.messages, answer.history.tools), True
            if not restarts and len(given) > self._limits.words:
                raise EnvironmentFault(
                    "flooded", f"it said {len(given)} tokens; environment.max_words_tokens = {self._limits.words}"
                )
            READ_TOKENS.inc(len(given))
            REWRITTEN.inc(restarts)
            held.read(given, restarts=restarts)
        return held

    def _left(self, prompt: Prompt, held: "_Held") -> int:
        """Tokens that the policy may say now."""
        limits = self._limits
        return min(
            prompt.max_tokens - len(held.token_ids), limits.context - len(held.context), limits.row - held.laid_tokens
        )


class _Held:
    """A conversation as far as it was held."""

    def __init__(self, begun: list[int]) -> None:
        """begun: the tokens that it begins with."""
        self.begun = begun
        self.context = list(begun)
        """What the engine reads for the next turn."""
        self.token_ids: list[int] = []
        self.turns: list[Turn] = []
        self.finish_reason: FinishReason = "stop"
        self.rewards = 0
        self.laid_tokens = len(begun)
        """Tokens of all its sequences so far."""
        self._logp: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
        self._spans: list[VersionSpan] = []
        self._text = ""
        self._given: list[int] = []
        self._restarts = False

    def hear(self, message: Trajectory) -> None:
        """Add a message of the policy."""
        at, said = len(self.token_ids), message.token_ids.numpy().tolist()
        self.turns.append(Turn(tokens=len(said), given=Array.of(self._given, "<i4"), restarts=self._restarts))
        for span in message.spans:
            last = self._spans[-1] if self._spans else None
            if last is not None and last.policy_version == span.policy_version:
                self._spans[-1] = VersionSpan(last.policy_version, last.start, at + span.end)
            else:
                self._spans.append(VersionSpan(span.policy_version, at + span.start, at + span.end))
        self._logp.append(message.behavior_logp.numpy())
        self.token_ids += said
        self.context += said
        self.laid_tokens += len(said)
        self.finish_reason = message.finish_reason
        self._text = message.text

    def reward(self, reward: float | None) -> None:
        """Keep what the environment gave for the last message."""
        if reward is not None:
            self.rewards += 1
            self.turns[-1] = msgspec.structs.replace(self.turns[-1], reward=float(reward))

    def read(self, given: list[int], *, restarts: bool) -> None:
        """Add what comes before the next message."""
        self._given = given
        self._restarts = restarts
        self.context = list(given) if restarts else self.context + given
        self.laid_tokens += len(given)

    def trajectory(self, prompt_ids: list[int]) -> Trajectory:
        """The record of it, in a group with these tokens for a prompt."""
        turns = list(self.turns)
        if self.begun != prompt_ids:  # an environment may begin each conversation in its own way
            turns[0] = msgspec.structs.replace(turns[0], given=Array.of(self.begun, "<i4"), restarts=True)
        return Trajectory(
            token_ids=Array.of(self.token_ids, "<i4"),
            behavior_logp=Array.of(np.concatenate(self._logp), "<f4"),
            spans=tuple(self._spans),
            finish_reason=self.finish_reason,
            text=self._text,
            turns=tuple(turns),
        )


def _subject(prompt: Prompt) -> Subject:
    return Subject(
        prompt=prompt.problem, reference=prompt.reference, options=prompt.options, row=prompt.row, seed=prompt.seed
    )


def _seed(seed: int, turn: int, attempt: int) -> int:
    """The seed of one turn, within 31 bits. The first turn of the first attempt has the conversation's own."""
    if turn == attempt == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{turn}/{attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1
