"""An engine that stops answering, or has no memory for the weights, is given up in time, with a sentence that says why."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rollout.engine import EngineFailed
from rollout.vllm import engine as engine_module
from rollout.vllm.engine import VllmEngine
from services.clock import Deadline
from services.config.load import load
from services.errors import InputError, WeightSyncError
from services.wire.weights import Gap, Rendezvous, WeightManifest

ROOT = Path(__file__).parents[3]
NEVER = 3600.0
MEETING = Rendezvous(
    pg_generation=1, backend="gloo", host="127.0.0.1", port=1, size=2, first_ranks={"a": 1}, timeout_s=-4.9
)
"""With the 5 s that the engine adds, its deadline is a tenth of a second away."""
VERSION = WeightManifest(policy_version=3, pg_generation=1, buckets=(), probes=(), bound=Gap(1, 1, 1))


class FakeVllm:
    """What the adapter asks of vLLM. `hangs` names the call that is never answered."""

    fault = None
    tokenizer = SimpleNamespace(eos_token_id=None)

    def __init__(self, hangs: str = "", **answers: Any) -> None:
        self._hangs = hangs
        self._answers = {
            "weights_progress": [("ready", "")],
            "stage_weights": [None],
            "swap_weights": [("exchange", "")],
        } | answers
        self.told = 0
        """How often every group in flight was told that the engine is dead."""
        self.model_config = SimpleNamespace(
            max_model_len=0,
            dtype=torch.float32,
            model=str(ROOT / "examples"),
            hf_text_config=None,
            get_vocab_size=lambda: 8,
        )

    async def _call(self, name: str) -> Any:
        if self._hangs and name.startswith(self._hangs):
            await asyncio.sleep(NEVER)
        return self._answers.get(name)

    async def ask_workers(self, method: str, *arguments: Any) -> Any:
        return await self._call(method)

    async def pause(self, *, clear_cache: bool) -> None:
        await self._call("pause")

    async def set_version(self, version: str) -> None:
        await self._call(f"label {version}")

    async def resume(self) -> None:
        await self._call("resume")

    async def generate(self, *_: Any) -> Any:
        return await self._call("generate")

    def fail_requests(self) -> None:
        self.told += 1

    async def stop(self, *, with_process: bool = False) -> None:
        pass


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "ANSWER_S", 0.1)


def engine_of(vllm: FakeVllm) -> VllmEngine:
    run = load(ROOT / "examples/addition/addition.toml", ["deadlines.engine_start_s=0.2"])
    vllm.model_config.max_model_len = run.model.max_length
    return VllmEngine(run, launch=lambda _: vllm)


def soon() -> Deadline:
    return Deadline.after(0.1, "the test")


def after_start(vllm: FakeVllm, then: Any) -> None:
    async def scenario() -> None:
        engine = engine_of(vllm)
        await engine.start()
        work: Coroutine[Any, Any, Any] = then(engine)
        await asyncio.wait_for(work, 20)

    asyncio.run(scenario())


@pytest.mark.parametrize("hangs", ["join_generation", "weights_progress"])
def test_a_join_that_the_engine_does_not_answer_gives_it_up(hangs: str) -> None:
    vllm = FakeVllm(hangs)
    with pytest.raises(EngineFailed, match=f"the engine hangs: {hangs} was not answered within"):
        after_start(vllm, lambda engine: engine.join(MEETING, "a"))
    assert vllm.told == 1  # every group in flight


@pytest.mark.parametrize("hangs", ["stage_weights", "weights_progress", "pause", "swap_weights", "label 3", "resume"])
def test_a_version_that_the_engine_does_not_answer_for_gives_it_up(hangs: str) -> None:
    vllm = FakeVllm(hangs)
    with pytest.raises(EngineFailed, match=r"the engine hangs: .* was not answered within"):
        after_start(vllm, lambda engine: engine.stage_and_swap(VERSION, soon()))
    assert vllm.told


def test_a_probe_that_is_not_answered_gives_the_engine_up() -> None:
    with pytest.raises(EngineFailed, match="the engine hangs: a probe was not answered"):
        after_start(FakeVllm("generate"), lambda engine: engine.probe([1, 2], soon()))


def test_an_engine_that_does_not_answer_after_its_start_did_not_start() -> None:
    with pytest.raises(EngineFailed, match=r"vLLM did not start .*set_version was not answered"):
        after_start(FakeVllm("label -1"), lambda engine: engine.stop())


def test_an_engine_that_answers_is_not_given_up_for_a_transfer_that_is_late() -> None:
    vllm = FakeVllm(weights_progress=[("busy", "")])
    with pytest.raises(WeightSyncError, match="Until then the engine samples under the weights it has"):
        after_start(vllm, lambda engine: engine.stage_and_swap(VERSION, soon()))
    assert not vllm.told


@pytest.mark.parametrize(
    "answers",
    [{"weights_progress": [("out of memory", "lower this")]}, {"swap_weights": [("refused", "lower this")]}],
    ids=["to receive", "to swap"],
)
def test_no_memory_for_the_weights_is_the_users_to_mend_and_no_reason_to_start_again(answers: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="engine worker 0: lower this"):
        after_start(FakeVllm(**answers), lambda engine: engine.stage_and_swap(VERSION, soon()))
