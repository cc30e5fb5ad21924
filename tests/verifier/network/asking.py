"""What tests of the network lane share: endpoints towards a scripted server, on a loop of their own."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from prometheus_client import REGISTRY

from services.config.endpoints import EndpointConfig
from verifier.network.endpoint import Endpoint
from verifier.network.endpoints import Endpoints

T = TypeVar("T")


def settings(url: str, **given: Any) -> EndpointConfig:
    return EndpointConfig.model_validate({"url": url, "model": "m", "timeout_s": 5.0, "attempts": 1} | given)


def with_endpoints(
    configs: Mapping[str, EndpointConfig], work: Callable[[Endpoints], Awaitable[T]], environ: Mapping[str, str] = {}
) -> T:
    async def main() -> T:
        async with Endpoints(configs, environ) as endpoints:
            return await work(endpoints)

    return asyncio.run(asyncio.wait_for(main(), 30))


def with_endpoint(url: str, work: Callable[[Endpoint], Awaitable[T]], **given: Any) -> T:
    return with_endpoints({"there": settings(url, **given)}, lambda endpoints: work(endpoints["there"]))


async def ask(endpoint: Endpoint) -> Any:
    return await endpoint.post({"question": 1}, json.loads, path="/x")


async def ended(call: Awaitable[T]) -> T | BaseException:
    """What a call gave, or raised."""
    return (await asyncio.gather(call, return_exceptions=True))[0]


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"ratchet_verifier_endpoint_{name}", {"endpoint": "there"} | labels) or 0.0
