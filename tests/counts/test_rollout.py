"""What a replica does for each token, each group and each engine step, in exact numbers."""

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.vllm.engine import VllmEngine
from rollout.vllm.own_thread import OwnThread
from services.config.load import load
from services.wire.codec import encode
from services.wire.trajectory import Group, Trajectory
from tests.counts.calls import python_calls
from tests.fakes.engine import FakeEngine
from tests.rollout.test_loop import Bench, prompt
from tests.rollout.vllm.test_hanging_engine import FakeVllm
from tests.rollout.vllm.test_own_thread import CountingEngine, asked, with_engine

ROOT = Path(__file__).parents[2]
GROUP_SIZE = 8


def answer(tokens: int) -> Any:
    """What vLLM gives for a group, as far as it is read."""
    completion = SimpleNamespace(
        token_ids=[5 + at % 7 for at in range(tokens)],
        logprobs=SimpleNamespace(logprobs=[-0.5] * tokens),
        weight_versions=[SimpleNamespace(version="3", start=0, end=tokens)],
        finish_reason="length",
    )
    return SimpleNamespace(outputs=[completion] * GROUP_SIZE)


def test_no_python_runs_for_each_sampled_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the engine's answer to the bytes that are handed over: as many calls for 800 tokens a response as for 8."""
    run = load(ROOT / "examples/addition/addition.toml")
    tokenizer = SimpleNamespace(eos_token_id=None, decode=lambda token_ids, skip_special_tokens: "text")
    asked_for = prompt(0, group_size=GROUP_SIZE, max_tokens=800)

    def calls(tokens: int) -> int:
        vllm = FakeVllm(generate=answer(tokens))
        vllm.model_config.max_model_len = run.model.max_length
        monkeypatch.setattr(vllm, "tokenizer", tokenizer, raising=False)

        async def scenario() -> int:
            engine = VllmEngine(run, launch=lambda _: vllm)
            await engine.start()
            sampled: list[Trajectory] = []
            sampling = engine.sample(asked_for)

            def work() -> None:
                try:
                    sampling.send(None)  # the fake answers at once
                except StopIteration as ended:
                    sampled.extend(ended.value)
                encode(Group(prompt=asked_for, trajectories=tuple(sampled), replica_id="rollout-0"))

            found = python_calls(work)
            assert [len(one) for one in sampled] == [tokens] * GROUP_SIZE
            return found

        return asyncio.run(scenario())

    calls(8)  # what is imported and made once
    assert calls(800) == calls(8)


def test_no_thread_is_started_for_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is asked in threads of the loop's pool, which stay."""
    started: list[str] = []
    start = threading.Thread.start

    def noted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    async def scenario() -> list[str]:
        bench = Bench(FakeEngine(seconds_per_group=0.001))
        bench.ready.set()
        # A pool begins a thread where none is free, up to a number of its own: so many at once that all are there.
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.05) for _ in range(64)))
        sampling = asyncio.create_task(bench.loop.run(bench.stop))
        await until_waiting(bench, feed(bench, range(50)))
        monkeypatch.setattr(threading.Thread, "start", noted)
        await until_waiting(bench, feed(bench, range(50, 250)))
        bench.stop.set()
        await sampling
        return list(started)

    assert asyncio.run(scenario()) == []


def feed(bench: Bench, numbers: range) -> int:
    for number in numbers:
        bench.prompts.append(encode(prompt(number)))
    return numbers.stop


async def until_waiting(bench: Bench, count: int) -> None:
    async with asyncio.timeout(20):
        while bench.trajectories.depth().waiting < count:
            await asyncio.sleep(0.005)


def test_an_engine_step_costs_no_round_trip_and_the_end_of_many_groups_costs_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the loop and the engine's thread: 40 groups that end in the third step wake the loop once."""
    woken: list[str] = []

    async def scenario(engine: CountingEngine, vllm: OwnThread) -> None:
        loop = asyncio.get_running_loop()
        real = loop.call_soon_threadsafe

        def wake(call: Any, *arguments: Any, **more: Any) -> Any:
            if threading.get_ident() in engine.threads:
                woken.append(f"{len(arguments[0])} answers")
            return real(call, *arguments, **more)

        await vllm.pause(clear_cache=False)
        requests = [asked(vllm, f"group/{number}") for number in range(40)]
        await vllm.ask_workers("anything")  # after them: all have been taken on
        monkeypatch.setattr(loop, "call_soon_threadsafe", wake)
        await vllm.resume()
        await asyncio.gather(*requests)

    engine = with_engine(scenario)
    assert engine.steps == CountingEngine.STEPS
    assert woken == ["1 answers", "40 answers"]  # that it goes on, and the groups
