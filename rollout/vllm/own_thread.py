"""RunningVllm in a thread of this process: vLLM's LLMEngine, which no other thread touches.

The thread does what it is asked between two steps, steps while any request is unfinished, and otherwise waits for the next
question. Questions reach it through a queue. Answers go back in batches: whatever finished in one step wakes the asyncio loop
once.
"""

import asyncio
import itertools
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rollout.vllm.running import EngineDied

if TYPE_CHECKING:
    from vllm.inputs.engine import TokensInput
    from vllm.outputs import RequestOutput
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.llm_engine import LLMEngine

log = logging.getLogger("ratchet.rollout")

STOP_S = 10.0
"""How long `stop` waits for the step in progress and the engine's own end. A thread that hangs ends with the process."""


@dataclass(frozen=True, slots=True)
class _Question:
    """Something for the engine's thread to do."""

    number: str
    """Which answer belongs to it: the id of a request, or a number of its own."""
    do: "Callable[[LLMEngine], Any]"
    is_request: bool = False
    """It is answered when the engine has finished the request, and not when it was taken on."""


@dataclass(frozen=True, slots=True)
class _Answer:
    number: str
    result: Any = None
    fault: Exception | None = None


class OwnThread:
    """See RunningVllm for the contract."""

    def __init__(self, build: "Callable[[], LLMEngine]") -> None:
        """Begin the thread and make the engine in it; returns when it can be asked. Raises what `build` raises.

        Waits for: the engine to load its model, in its thread.
        Until: the caller ends; the replica does so after deadlines.engine_start_s.
        Ended by: the engine, or what `build` raises.
        Metric: none; /metrics is served once the engine has started.
        """
        self._questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._awaited: dict[str, asyncio.Future[Any]] = {}  # touched by the loop's thread alone
        self._answers: list[_Answer] = []  # touched by the engine's thread alone
        self._loop: asyncio.AbstractEventLoop | None = None  # that of the first question
        self._fault: str | None = None
        self._ends_with_process = False
        self._ended: Future[None] = Future()
        built: Future[LLMEngine] = Future()
        threading.Thread(target=self._run, args=(build, built), name="engine", daemon=True).start()
        engine = built.result()
        self.model_config: Any = engine.model_config
        self.tokenizer: Any = engine.get_tokenizer()

    @property
    def fault(self) -> str | None:
        return self._fault

    async def generate(self, prompt: "TokensInput", parameters: "SamplingParams", request_id: str) -> "RequestOutput":
        def add(engine: "LLMEngine") -> None:
            engine.add_request(request_id, prompt, parameters)

        try:
            return cast("RequestOutput", await self._answered(_Question(request_id, add, is_request=True)))
        except asyncio.CancelledError:
            self._questions.put(_Question(self._next_number(), lambda engine: engine.abort_request([request_id])))
            raise

    async def ask_workers(self, method: str, *arguments: Any) -> list[Any]:
        return cast(list[Any], await self._ask(lambda engine: engine.collective_rpc(method, args=arguments)))

    async def pause(self, *, clear_cache: bool) -> None:
        def pause(engine: "LLMEngine") -> None:
            core = _core(engine)
            core.pause_scheduler(mode="keep", clear_cache=False)
            while _has_work(engine):  # steps that were begun; there may be several on GPU
                self._step(engine)
            if core.scheduler.connector is not None:
                core.scheduler.connector.reset_cache()  # or samples that wait would share what other weights have read
            if clear_cache:
                core.pause_scheduler(mode="keep", clear_cache=True)

        await self._ask(pause)

    async def set_version(self, version: str) -> None:
        await self._ask(lambda engine: engine.set_weight_version(version))

    async def resume(self) -> None:
        await self._ask(lambda engine: _core(engine).resume_scheduler())

    def fail_requests(self) -> None:
        for future in self._awaited.values():
            if not future.done():
                future.set_exception(EngineDied(self._fault or "it was given up"))

    async def stop(self, *, with_process: bool = False) -> None:
        """See RunningVllm.

        Waits for: the engine's thread, to end the step in progress and let go of the model.
        Until: 10 s (STOP_S); a thread that hangs in a step ends with the process.
        Ended by: the end of the thread, or that time.
        Metric: none; the replica is ending.
        """
        self._ends_with_process |= with_process
        self._fault = self._fault or "it was stopped"
        self.fail_requests()
        self._questions.put(None)
        await asyncio.wait({asyncio.wrap_future(self._ended)}, timeout=STOP_S)

    # The loop's side

    async def _ask(self, do: "Callable[[LLMEngine], Any]") -> Any:
        return await self._answered(_Question(self._next_number(), do))

    async def _answered(self, question: _Question) -> Any:
        if self._fault is not None:
            raise EngineDied(self._fault)
        self._loop = asyncio.get_running_loop()
        self._awaited[question.number] = future = self._loop.create_future()
        self._questions.put(question)
        try:
            return await future
        finally:
            self._awaited.pop(question.number, None)

    def _next_number(self) -> str:
        return str(next(self._numbers))

    def _deliver(self, answers: list[_Answer]) -> None:
        for answer in answers:
            future = self._awaited.get(answer.number)
            if future is None or future.done():
                continue  # the asker was cancelled, or told that the engine is dead
            if answer.fault is not None:
                future.set_exception(answer.fault)
            else:
                future.set_result(answer.result)

    # The engine's side

    def _run(self, build: "Callable[[], LLMEngine]", built: "Future[LLMEngine]") -> None:
        try:
            engine = build()
        except BaseException as fault:
            built.set_exception(fault)
            return
        built.set_result(engine)
        del built  # or it would keep the engine
        try:
            self._serve(engine)
        except BaseException as fault:
            log.exception("the engine failed in a step")
            self._fault = f"{type(fault).__name__}: {fault}"
            self._on_loop(self.fail_requests)
        finally:
            if not self._ends_with_process:  # it collects garbage twice, which takes seconds on a busy host
                with suppress(Exception):  # what it held goes with the process at the latest
                    engine.renderer.shutdown()
                    engine.engine_core.shutdown()
            self._ended.set_result(None)

    def _serve(self, engine: "LLMEngine") -> None:
        """Answer and step until `stop`.

        Waits for: the next question, while there is nothing to sample.
        Until: it is stopped; there is no deadline.
        Ended by: a question, or `stop`.
        Metric: ratchet_idle_seconds_total{room="rollout"}; ratchet_rollout_running_sequences is 0.
        """
        while True:
            with suppress(queue.Empty):
                question = self._questions.get(block=not _has_work(engine))
                while question is not None:
                    self._take(engine, question)
                    question = self._questions.get_nowait()
                return
            self._send()  # now, and not after a step
            if _has_work(engine):
                self._step(engine)
                self._send()

    def _take(self, engine: "LLMEngine", question: _Question) -> None:
        """Do what is asked; what it raises is the answer."""
        try:
            result = question.do(engine)
        except Exception as fault:
            if question.is_request:
                engine.abort_request([question.number])  # sequences of it that were taken on before the fault
            self._answers.append(_Answer(question.number, fault=fault))
            return
        if not question.is_request:
            self._answers.append(_Answer(question.number, result))

    def _step(self, engine: "LLMEngine") -> None:
        self._answers += [_Answer(output.request_id, output) for output in engine.step() if output.finished]

    def _send(self) -> None:
        """Wake the loop, once for all answers since the last time."""
        if self._answers:
            answers = self._answers
            self._answers = []
            self._on_loop(self._deliver, answers)

    def _on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed, so nobody waits
                self._loop.call_soon_threadsafe(call, *arguments)


def _core(engine: "LLMEngine") -> Any:
    """vLLM's EngineCore, which its in-process client holds."""
    return cast(Any, engine.engine_core).engine_core


def _has_work(engine: "LLMEngine") -> bool:
    """Whether there is a step to take: a request to go on with, unless paused, or a step that was begun."""
    core = _core(engine)
    return bool(core.scheduler.has_requests() or core.batch_queue)
