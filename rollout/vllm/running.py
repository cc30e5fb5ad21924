"""RunningVllm: what the adapter asks of a vLLM that has started, wherever it runs.

own_process.py has it in a process of its own, own_thread.py in a thread of this one (rollout.engine_process). A swap of weights
is written once, in engine.py, over these calls.
"""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from vllm.inputs.engine import TokensInput
    from vllm.outputs import RequestOutput
    from vllm.sampling_params import SamplingParams


class EngineDied(Exception):
    """vLLM cannot do anything any more."""


class RunningVllm(Protocol):
    """Called from one asyncio loop. Every coroutine is answered between two engine steps, and raises EngineDied if the engine
    died."""

    model_config: Any
    """What vLLM made of the model's settings."""
    tokenizer: Any

    @property
    def fault(self) -> str | None:
        """Why it is dead, or None."""

    async def generate(self, prompt: "TokensInput", parameters: "SamplingParams", request_id: str) -> "RequestOutput":
        """One request to its end: the output of all its sequences. Cancelling aborts it.

        Raises what vLLM raises for a request that it refuses (VLLMClientError or ValueError).
        """

    async def ask_workers(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every engine worker; their answers, in the order of their ranks. Raises what a worker raised."""

    async def pause(self, *, clear_cache: bool) -> None:
        """Take no step until `resume`; returns when none is in progress. Requests in flight stay.

        clear_cache: they are prefilled again afterwards. Otherwise they keep their cache.
        """

    async def set_version(self, version: str) -> None:
        """Label every token sampled from now on with this weight version."""

    async def resume(self) -> None:
        """Go on after `pause`."""

    def fail_requests(self) -> None:
        """Make every request in flight raise EngineDied, though the engine does not answer."""

    async def stop(self, *, with_process: bool = False) -> None:
        """End it; what is in flight raises EngineDied. with_process: see InferenceEngine."""
