"""A rollout replica as a process: `python -m rollout RUN.toml`."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from rollout.engine import InferenceEngine
from rollout.replica import Replica, start_engine
from rollout.vllm.engine import VllmEngine
from rollout.vllm.launch import prepare
from services.config import RunConfig
from services.config.load import load
from services.entry import DONE, INTERRUPTED, StopSignal, begin, end, redis_connection, service_parser
from services.identity import name_nccl_host, replica_name
from services.streams.redis_connection import RedisConnection


def main(make_engine: Callable[[RunConfig], InferenceEngine] = VllmEngine) -> int:
    parser = service_parser("rollout")
    name = "the name of this replica (default: the host's name and a suffix that lasts)"
    parser.add_argument("--replica-id", metavar="NAME", help=name)
    arguments = begin(parser, prepare)
    config = load(arguments.config, arguments.overrides)
    name_nccl_host()
    replica_id = arguments.replica_id or replica_name()
    return asyncio.run(_run(config, make_engine(config), replica_id, arguments.services_folder))


async def _run(config: RunConfig, engine: InferenceEngine, replica_id: str, services_folder: Path | None) -> int:
    stop = asyncio.Event()
    loop, hurried = asyncio.get_running_loop(), list[RedisConnection]()

    def on_stop() -> None:
        for one in hurried:
            one.hurry()
        loop.call_soon_threadsafe(stop.set)

    StopSignal(on_stop=on_stop)
    connection = await asyncio.to_thread(redis_connection, config)
    hurried.append(connection)
    try:
        if not await start_engine(engine, stop, config.deadlines.engine_start_s):
            return INTERRUPTED
        replica = Replica(config, engine, connection, replica_id=replica_id, services_folder=services_folder)
        await replica.run(stop)
    finally:
        await engine.stop(with_process=True)
    return DONE


if __name__ == "__main__":
    end(main)
