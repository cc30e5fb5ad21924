"""RunningVllm in a process of its own: vLLM's AsyncLLM. What is asked and answered crosses between the two as messages."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from rollout.vllm.running import EngineDied

if TYPE_CHECKING:
    from vllm.inputs.engine import TokensInput
    from vllm.outputs import RequestOutput
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM


class OwnProcess:
    """See RunningVllm for the contract."""

    def __init__(self, llm: "AsyncLLM") -> None:
        self._llm = llm
        self.model_config: Any = llm.model_config
        self.tokenizer: Any = llm.get_tokenizer()

    @property
    def fault(self) -> str | None:
        return "its process ended" if self._llm.errored else None

    async def generate(self, prompt: "TokensInput", parameters: "SamplingParams", request_id: str) -> "RequestOutput":
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            async for output in self._llm.generate(prompt, parameters, request_id):
                if output.finished:
                    return output
        except (EngineDeadError, EngineGenerateError) as fault:
            raise EngineDied(str(fault)) from fault
        raise EngineDied(f"{request_id} ended without an output")

    async def ask_workers(self, method: str, *arguments: Any) -> list[Any]:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return cast(list[Any], await self._llm.collective_rpc(method, args=arguments))
        except EngineDeadError as fault:
            raise EngineDied(str(fault)) from fault

    async def pause(self, *, clear_cache: bool) -> None:
        # Not AsyncLLM.pause_generation: it sleeps another 20 ms to order its outputs.
        await self._llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=clear_cache)

    async def set_version(self, version: str) -> None:
        await self._llm.engine_core.set_weight_version_async(version)

    async def resume(self) -> None:
        await self._llm.engine_core.resume_scheduler_async()

    def fail_requests(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        self._llm.output_processor.propagate_error(EngineDeadError())

    async def stop(self, *, with_process: bool = False) -> None:
        if self._llm.output_handler is not None:
            self._llm.output_handler.cancel()  # or it would report the end of the engine as a fault
        self.fail_requests()
        await asyncio.to_thread(self._llm.shutdown)
