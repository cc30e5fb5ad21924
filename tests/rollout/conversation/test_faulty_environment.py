"""A thousand conversations with an environment that fails in a tenth of its steps: all accounted for, none scored for it."""

import asyncio
import random

from prometheus_client import REGISTRY

from rollout.claims import RolloutStreams
from rollout.conversation.metrics import KINDS
from rollout.environments import Message, Start, Subject, Turn
from rollout.loop import SamplingLoop
from services.wire.codec import decode, encode
from services.wire.score import DeadGroup
from services.wire.trajectory import Group
from tests.fakes.streams import MemoryStream
from tests.fakes.talking_engine import TalkingEngine
from tests.rollout.conversation.talking import conversations, message, prompt, run_config
from verifier.worker.loop import items_of

GROUPS, GROUP_SIZE = 250, 4
DRAW = random.Random(0)
TURNS = 3


class Faulty:
    """Plays three turns and gives 1, or crashes, hangs, floods or lies."""

    def __init__(self) -> None:
        self.turn = 0

    async def reset(self, subject: Subject) -> Start:
        return Start(subject.messages)

    async def step(self, message: Message) -> Turn:
        self.turn += 1
        if DRAW.random() < 0.1:
            return await self._fail()
        if self.turn == TURNS:
            return Turn(done=True, reward=1.0)
        return Turn([{"role": "user", "content": "lower"}])

    async def _fail(self) -> Turn:
        how = DRAW.choice(("crash", "hang", "flood", "lie", "claim"))
        if how == "crash":
            raise ConnectionResetError("the tool went away")
        if how == "hang":
            await asyncio.sleep(60.0)
        if how == "flood":
            return Turn([{"role": "user", "content": "hello " * 50_000}])
        if how == "lie":
            return Turn(done=True, reward=float("-inf"))
        return Turn(done=True)  # without a reward

    async def close(self) -> None:
        raise RuntimeError("cannot even close")


def faults(kind: str) -> float:
    return REGISTRY.get_sample_value("ratchet_rollout_environment_faults_total", {"fault": kind}) or 0.0


def test_a_thousand_conversations_are_all_accounted_for_and_none_is_scored_for_a_fault() -> None:
    before = {kind: faults(kind) for kind in KINDS}
    evaluation, prompts, trajectories, dead = map(
        MemoryStream, ("evaluation_prompts", "prompts", "trajectories", "dead")
    )
    engine = TalkingEngine(lambda asked: message("seven"))
    ready, stop = asyncio.Event(), asyncio.Event()

    async def scenario() -> None:
        talks = conversations(Faulty, run_config(turn_s=0.25, attempts=3, max_words_tokens=500))
        loop = SamplingLoop(
            engine,  # type: ignore[arg-type]
            RolloutStreams(evaluation, prompts, trajectories, dead),
            ready,
            replica_id="rollout-0",
            most_sequences=200,
            group_size=GROUP_SIZE,
            max_deliveries=3,
            conversations=talks,
        )
        for number in range(GROUPS):
            prompts.append(encode(prompt(number, group_size=GROUP_SIZE)))
        ready.set()
        running = asyncio.create_task(loop.run(stop))
        async with asyncio.timeout(100):
            while trajectories.depth().waiting + dead.depth().waiting < GROUPS and not running.done():
                await asyncio.sleep(0.02)
        stop.set()
        await running
        await talks.stop()

    asyncio.run(scenario())
    handed_over = [decode(raw, Group) for raw in trajectories.peek(GROUPS)]
    given_up = [decode(raw, DeadGroup) for raw in dead.peek(GROUPS)]
    ids = [group.prompt.group_id for group in handed_over] + [group.group_id for group in given_up]
    assert sorted(ids) == sorted(f"train-{number}" for number in range(GROUPS))
    assert prompts.depth().waiting == prompts.depth().pending == 0
    # Every conversation that is scored was played to its end, and has what the environment gave for it.
    for group in handed_over:
        assert [item.response for item in items_of(group)] == ["1.0"] * GROUP_SIZE
        assert all(len(one.turns) == TURNS and one.finish_reason == "stop" for one in group.trajectories)
    assert all("failed in 3 attempts" in group.cause for group in given_up)
    assert 0 < len(given_up) < GROUPS / 4
    assert all(faults(kind) > before[kind] for kind in KINDS)
