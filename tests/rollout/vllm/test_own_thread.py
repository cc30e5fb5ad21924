"""vLLM in a thread of the replica's own process: who does what when, with an engine that only counts."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.vllm import own_thread
from rollout.vllm.own_thread import OwnThread
from rollout.vllm.running import EngineDied


class CountingEngine:
    """Ends every request in its third step. `begun` steps were scheduled before and have to be taken even when paused."""

    STEPS = 3
    model_config = SimpleNamespace(max_model_len=8)

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.steps = 0
        self.paused = False
        self.log: list[str] = []
        self.threads: set[int] = set()
        self.hold = threading.Event()  # a step waits for it
        self.hold.set()
        self.stepping = threading.Event()
        self.fault: Exception | None = None
        self.begun = 0
        self.renderer = SimpleNamespace(shutdown=lambda: self.log.append("renderer ends"))
        self.forgotten_after: list[int] = []
        """Steps taken by then, for each time that what is shared of prompts was forgotten."""
        connector = SimpleNamespace(reset_cache=lambda: self.forgotten_after.append(self.steps))
        scheduler = SimpleNamespace(has_requests=lambda: bool(self.left) and not self.paused, connector=connector)
        core = SimpleNamespace(
            scheduler=scheduler,
            batch_queue=range(0),
            pause_scheduler=self._pause,
            resume_scheduler=self._resume,
        )
        self.core = core
        self.engine_core = SimpleNamespace(engine_core=core, shutdown=lambda: self.log.append("engine ends"))

    def get_tokenizer(self) -> str:
        return "tokenizer"

    def add_request(self, request_id: str, prompt: Any, parameters: Any) -> None:
        self.threads.add(threading.get_ident())
        if prompt == "too long":
            raise ValueError("does not fit")
        self.left[request_id] = self.STEPS

    def abort_request(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self.log.append(f"abort {request_id}")
            self.left.pop(request_id, None)

    def step(self) -> list[Any]:
        self.threads.add(threading.get_ident())
        self.stepping.set()
        assert self.hold.wait(10)
        if self.fault is not None:
            raise self.fault
        self.steps += 1
        self.core.batch_queue = range(max(0, len(self.core.batch_queue) - 1))
        self.left = {request_id: steps - 1 for request_id, steps in self.left.items()}
        ended = [request_id for request_id, steps in self.left.items() if steps == 0]
        for request_id in ended:
            del self.left[request_id]
        return [SimpleNamespace(request_id=request_id, finished=True) for request_id in ended]

    def collective_rpc(self, method: str, args: tuple[Any, ...]) -> list[Any]:
        self.threads.add(threading.get_ident())
        if method == "fail":
            raise RuntimeError("no such layer")
        return [(method, *args)]

    def set_weight_version(self, version: str) -> None:
        self.log.append(f"label {version}")

    def _pause(self, *, mode: str, clear_cache: bool) -> None:
        self.paused = True
        self.log.append(f"pause {mode}{' and clear' if clear_cache else ''} after step {self.steps}")

    def _resume(self) -> None:
        self.paused = False
        self.log.append("resume")


def with_engine(scenario: Callable[[CountingEngine, OwnThread], Coroutine[Any, Any, None]]) -> CountingEngine:
    engine = CountingEngine()

    async def run() -> None:
        vllm = OwnThread(lambda: engine)  # type: ignore[arg-type, return-value]
        try:
            await scenario(engine, vllm)
        finally:
            await vllm.stop()

    asyncio.run(asyncio.wait_for(run(), 20))
    return engine


def asked(vllm: OwnThread, request_id: str, prompt: Any = "prompt") -> Awaitable[Any]:
    return asyncio.ensure_future(vllm.generate(prompt, None, request_id))  # type: ignore[arg-type]


async def reached(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 10)


def test_the_loop_is_woken_once_for_everything_that_one_step_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(engine: CountingEngine, vllm: OwnThread) -> None:
        wakes = 0
        loop = asyncio.get_running_loop()
        real = loop.call_soon_threadsafe

        def wake(*arguments: Any, **more: Any) -> Any:
            nonlocal wakes
            wakes += threading.get_ident() in engine.threads
            return real(*arguments, **more)

        monkeypatch.setattr(loop, "call_soon_threadsafe", wake)
        engine.hold.clear()
        requests = [asked(vllm, f"group/{number}") for number in range(40)]
        await reached(engine.stepping)
        engine.hold.set()
        outputs = await asyncio.gather(*requests)
        assert [output.request_id for output in outputs] == [f"group/{number}" for number in range(40)]
        assert 1 <= wakes <= 2  # two if the first step began before all had been asked
        assert engine.steps <= engine.STEPS + 1

    engine = with_engine(scenario)
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads
    assert engine.log[-2:] == ["renderer ends", "engine ends"]


def test_what_is_asked_is_done_between_two_steps_and_not_after_the_last() -> None:
    async def scenario(engine: CountingEngine, vllm: OwnThread) -> None:
        engine.hold.clear()
        request = asked(vllm, "group/0")
        await reached(engine.stepping)
        answer = asyncio.ensure_future(vllm.ask_workers("weights_progress", 3))
        await asyncio.sleep(0.05)
        assert not answer.done()  # a step is in progress
        engine.hold.set()
        assert await answer == [("weights_progress", 3)]
        await request
        with pytest.raises(RuntimeError, match="no such layer"):
            await vllm.ask_workers("fail")

    with_engine(scenario)


def test_an_engine_that_shares_no_prompts_pauses_too() -> None:
    async def scenario(engine: CountingEngine, vllm: OwnThread) -> None:
        engine.core.scheduler.connector = None
        await vllm.pause(clear_cache=False)
        await vllm.resume()

    assert with_engine(scenario).forgotten_after == []


@pytest.mark.parametrize("clear_cache", [False, True])
def test_a_pause_takes_the_steps_that_were_begun_and_no_other(clear_cache: bool) -> None:
    async def scenario(engine: CountingEngine, vllm: OwnThread) -> None:
        engine.hold.clear()
        request = asked(vllm, "group/0")
        await reached(engine.stepping)
        engine.core.batch_queue = range(2)
        pausing = asyncio.ensure_future(vllm.pause(clear_cache=clear_cache))
        engine.hold.set()
        await pausing
        steps = engine.steps
        assert engine.forgotten_after == [steps]
        await vllm.set_version("7")
        await asyncio.sleep(0.05)
        assert engine.steps == steps
        assert len(engine.core.batch_queue) == 0
        await vllm.resume()
        await request
        paused = [line for line in engine.log if line.startswith("pause")]
        assert paused[1:] == ([f"pause keep and clear after step {steps}"] if clear_cache else [])
        assert engine.log[len(paused) :] == ["label 7", "resume"]

    with_engine(scenario)


def test_a_request_that_is_refused_says_why_and_the_others_go_on() -> None:
    async def scenario(engine: CountingEngine, vllm: OwnThread) -> None:
        other = asked(vllm, "group/0")
        with pytest.raises(ValueError, match="does not fit"):
            await asked(vllm, "group/1", "too long")
        assert (await other).request_id == "group/0"
        assert engine.log == ["abort group/1"]

    with_engine(scenario)


def test_a_cancelled_request_leaves_the_engine() -> None:
    async def scenario(engine: CountingEngine, vllm: OwnThread) -> None:
        engine.hold.clear()
        request = asyncio.ensure_future(asked(vllm, "group/0"))
        await reached(engine.stepping)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        engine.hold.set()
        await vllm.ask_workers("anything")
        assert engine.left == {}

    with_engine(scenario)


def test_a_fault_in_a_step_is_the_end_for_everything_asked_before_and_after() -> None:
    async def scenario(engine: CountingEngine, vllm: OwnThread) -> None:
        engine.hold.clear()
        waiting = [asked(vllm, f"group/{number}") for number in range(3)]
        await reached(engine.stepping)
        waiting.append(asyncio.ensure_future(vllm.ask_workers("weights_progress")))
        engine.fault = MemoryError("no room")
        engine.hold.set()
        for one in waiting:
            with pytest.raises(EngineDied, match="MemoryError: no room"):
                await one
        assert vllm.fault == "MemoryError: no room"
        with pytest.raises(EngineDied, match="MemoryError: no room"):
            await vllm.ask_workers("weights_progress")

    assert with_engine(scenario).log == ["renderer ends", "engine ends"]


def test_an_engine_that_hangs_in_a_step_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_thread, "STOP_S", 0.1)

    async def scenario(engine: CountingEngine, vllm: OwnThread) -> None:
        engine.hold.clear()
        request = asked(vllm, "group/0")
        await reached(engine.stepping)
        await vllm.stop()
        with pytest.raises(EngineDied, match="it was stopped"):
            await request
        engine.hold.set()

    with_engine(scenario)


def test_an_engine_whose_process_ends_is_not_put_away_first() -> None:
    async def scenario(_: CountingEngine, vllm: OwnThread) -> None:
        await vllm.stop(with_process=True)

    assert with_engine(scenario).log == []


def test_an_engine_that_cannot_be_made_says_why() -> None:
    def build() -> Any:
        raise OSError("no such model")

    with pytest.raises(OSError, match="no such model"):
        OwnThread(build)
