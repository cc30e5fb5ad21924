"""The sampling loop hands over what it sampled, evaluation first, and buries what cannot be sampled."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import pytest
from prometheus_client import REGISTRY

from rollout.claims import POLL_S, RolloutStreams
from rollout.engine import EngineFailed
from rollout.loop import SamplingLoop
from services.errors import InputError
from services.streams import Claim, Stream
from services.wire.codec import Array, decode, encode
from services.wire.prompt import Prompt
from services.wire.score import DeadGroup
from services.wire.trajectory import Group, Trajectory
from tests.fakes.engine import FakeEngine
from tests.fakes.streams import MemoryStream


def prompt(number: int, **changes: object) -> Prompt:
    facts = {
        "group_id": f"train-{number}",
        "sequence_number": number,
        "purpose": "train",
        "row": number,
        "token_ids": Array.of([1, 2, 3], "<i4"),
        "group_size": 2,
        "temperature": 1.0,
        "max_tokens": 4,
        "stop_token_ids": (),
        "seed": number,
        "grader": "exact",
        "reference": "1",
        "options": {},
    }
    return Prompt(**(facts | changes))  # type: ignore[arg-type]


class Bench:
    """A loop over a fake engine and streams in memory."""

    def __init__(self, engine: FakeEngine | None = None, capacity: int = 8) -> None:
        self.engine = engine or FakeEngine()
        self.engine.policy_version = 0
        self.evaluation = MemoryStream("evaluation_prompts")
        self.prompts = MemoryStream("prompts")
        self.trajectories = MemoryStream("trajectories")
        self.dead = MemoryStream("dead")
        self.ready = asyncio.Event()
        self.stop = asyncio.Event()
        self._capacity = capacity
        self.use_streams()

    def use_streams(self) -> None:
        """Make the loop, of the streams that there are now."""
        self.loop = SamplingLoop(
            self.engine,
            RolloutStreams(self.evaluation, self.prompts, self.trajectories, self.dead),
            self.ready,
            replica_id="rollout-0",
            most_sequences=self._capacity,
            group_size=2,
            max_deliveries=3,
        )

    async def run_until(self, condition: Callable[[], bool]) -> None:
        task = asyncio.create_task(self.loop.run(self.stop))
        async with asyncio.timeout(10):
            while not condition() and not task.done():
                await asyncio.sleep(0.01)
        self.stop.set()
        await task

    def groups(self) -> list[Group]:
        return [decode(raw, Group) for raw in self.trajectories.peek(1000)]


def test_every_prompt_becomes_one_group() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.ready.set()
        for number in range(20):
            bench.prompts.append(encode(prompt(number)))
        await bench.run_until(lambda: bench.trajectories.depth().waiting == 20)
        assert sorted(group.prompt.sequence_number for group in bench.groups()) == list(range(20))
        assert bench.prompts.depth().waiting == bench.prompts.depth().pending == 0

    asyncio.run(scenario())


def test_nothing_is_claimed_before_the_weights_are_proven() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.prompts.append(encode(prompt(0)))
        task = asyncio.create_task(bench.loop.run(bench.stop))
        await asyncio.sleep(0.3)
        assert bench.prompts.depth().waiting == 1
        bench.ready.set()
        await asyncio.sleep(0.7)
        assert bench.trajectories.depth().waiting == 1
        bench.stop.set()
        await task

    asyncio.run(scenario())


def test_evaluation_goes_before_training() -> None:
    async def scenario() -> None:
        bench = Bench(capacity=2)
        bench.ready.set()
        for number in range(5):
            bench.prompts.append(encode(prompt(number)))
        bench.evaluation.append(encode(prompt(0, group_id="eval-1-0-0", purpose="evaluate")))
        await bench.run_until(lambda: bench.trajectories.depth().waiting == 6)
        assert bench.groups()[0].prompt.purpose == "evaluate"

    asyncio.run(scenario())


def test_the_engine_is_given_what_it_holds_and_one_group_that_waits_there() -> None:
    class Counting(FakeEngine):
        most = 0

        async def sample(self, prompt: Prompt):  # type: ignore[no-untyped-def]
            now = asyncio.create_task(super().sample(prompt))
            await asyncio.sleep(0)
            Counting.most = max(Counting.most, self.running_sequences)
            return await now

    async def scenario() -> None:
        bench = Bench(Counting(seconds_per_group=0.3), capacity=6)
        bench.ready.set()
        for number in range(10):
            bench.prompts.append(encode(prompt(number)))
        await bench.run_until(lambda: bench.trajectories.depth().waiting == 10)
        assert Counting.most == 6 + 2

    asyncio.run(scenario())


class CountedStream(MemoryStream):
    """Counts what a server would be asked."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.asked: list[str] = []

    def claim(self, count: int, block_s: float) -> list[Claim]:
        self.asked.append("claim")
        return super().claim(count, block_s)

    def hand_over_many(self, results: Sequence[tuple[Claim, bytes]], to: Stream) -> list[bool]:
        self.asked.append("hand over")
        return super().hand_over_many(results, to)


class Stepping(FakeEngine):
    """Ends everything that it holds in one step."""

    def __init__(self) -> None:
        super().__init__()
        self.step = asyncio.Event()

    async def sample(self, prompt: Prompt) -> tuple[Trajectory, ...]:
        await self.step.wait()
        return await super().sample(prompt)


def test_what_one_step_of_the_engine_ends_costs_one_hand_over_and_one_claim_and_no_thread() -> None:
    async def scenario() -> None:
        engine = Stepping()
        bench = Bench(engine, capacity=64)
        bench.prompts = CountedStream("prompts")
        bench.evaluation = CountedStream("evaluation_prompts")
        bench.use_streams()
        bench.ready.set()
        for number in range(200):
            bench.prompts.append(encode(prompt(number)))
        task = asyncio.create_task(bench.loop.run(bench.stop))
        await asyncio.sleep(0.3)
        bench.prompts.asked.clear()
        threads = {thread.ident for thread in threading.enumerate()}
        engine.step.set()
        engine.step.clear()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if bench.trajectories.depth().waiting >= 33:
                break
        await asyncio.sleep(0.05)
        assert bench.trajectories.depth().waiting == 33  # 32 that fit, and one ahead
        assert sorted(bench.prompts.asked) == ["claim", "hand over"]
        assert len({thread.ident for thread in threading.enumerate()} - threads) <= 1
        bench.stop.set()
        await task

    asyncio.run(scenario())


def test_evaluation_prompts_are_looked_for_ten_times_a_second_and_not_in_every_turn() -> None:
    async def scenario() -> None:
        bench = Bench(FakeEngine(seconds_per_group=0.002))
        bench.evaluation = evaluation = CountedStream("evaluation_prompts")
        bench.use_streams()
        bench.ready.set()
        for number in range(300):
            bench.prompts.append(encode(prompt(number)))
        begun_s = time.monotonic()
        await bench.run_until(lambda: bench.trajectories.depth().waiting == 300)
        assert len(evaluation.asked) <= 2 + (time.monotonic() - begun_s) / POLL_S

    asyncio.run(scenario())


def test_what_cannot_be_sampled_goes_to_dead_with_its_cause() -> None:
    class Refusing(FakeEngine):
        async def sample(self, prompt: Prompt):  # type: ignore[no-untyped-def]
            raise InputError("prompt of 99 tokens does not fit")

    async def scenario() -> None:
        bench = Bench(Refusing())
        bench.ready.set()
        bench.prompts.append(encode(prompt(0)))
        bench.prompts.append(b"garbage")
        await bench.run_until(lambda: bench.dead.depth().waiting == 2)
        dead = {decode(raw, DeadGroup).cause: decode(raw, DeadGroup) for raw in bench.dead.peek(10)}
        assert "prompt of 99 tokens does not fit" in dead
        assert any("not a record" in cause for cause in dead)
        for cause in ("refused", "unreadable"):
            labels = {"room": "rollout", "cause": cause}
            assert (REGISTRY.get_sample_value("ratchet_dead_groups_total", labels) or 0) >= 1
        assert bench.trajectories.depth().waiting == 0

    asyncio.run(scenario())


def test_an_engine_without_work_is_idle_however_short_the_gaps() -> None:
    """A prompt comes 0.03 s after each one is done: the engine is empty for a third of the time."""

    async def scenario() -> tuple[float, float]:
        bench = Bench(FakeEngine(seconds_per_group=0.06))
        bench.ready.set()
        begun_s = time.monotonic()
        task = asyncio.create_task(bench.loop.run(bench.stop))
        for number in range(20):
            bench.prompts.append(encode(prompt(number)))
            while bench.trajectories.depth().waiting <= number:
                await asyncio.sleep(0.002)
            await asyncio.sleep(0.03)
        busy_s, ready_s = bench.loop.busy_and_ready_s()
        assert ready_s == pytest.approx(time.monotonic() - begun_s, abs=0.1)
        bench.stop.set()
        await task
        return busy_s, ready_s

    before = REGISTRY.get_sample_value("ratchet_busy_seconds_total", {"room": "rollout"}) or 0.0
    busy_s, ready_s = asyncio.run(scenario())
    after = REGISTRY.get_sample_value("ratchet_busy_seconds_total", {"room": "rollout"}) or 0.0
    assert busy_s >= 20 * 0.06
    assert ready_s - busy_s >= 20 * 0.03  # every gap, none of which is as long as POLL_S
    assert after - before == pytest.approx(busy_s, abs=0.01)


def test_a_dead_engine_ends_the_loop_and_leaves_the_claim_owed() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.engine.dead = "out of memory"
        bench.ready.set()
        bench.prompts.append(encode(prompt(0)))
        with pytest.raises(EngineFailed):
            await bench.run_until(lambda: False)
        assert bench.prompts.depth().pending == 1
        assert bench.prompts.as_consumer("rollout-1").claim(1, 0.0) == []  # not before its idle time: it counts

    asyncio.run(scenario())


def test_a_clean_stop_gives_back_what_was_in_flight_and_counts_no_delivery() -> None:
    async def scenario() -> None:
        bench = Bench(FakeEngine(seconds_per_group=60.0))
        bench.ready.set()
        bench.prompts.append(encode(prompt(0)))
        bench.evaluation.append(encode(prompt(0, group_id="eval-1-0-0", purpose="evaluate")))
        await bench.run_until(lambda: bench.engine.running_sequences == 4)
        for stream in (bench.prompts, bench.evaluation):
            (claim,) = stream.as_consumer("rollout-1").claim(1, 0.0)
            assert claim.deliveries == 1

    asyncio.run(scenario())
