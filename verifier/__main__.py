"""The verifier as a process: `python -m verifier RUN.toml` in a run, `python -m verifier --port 8700` for HTTP alone."""

import argparse
import asyncio
import logging
import socket
from collections.abc import Sequence
from pathlib import Path

from services import entry, log_lines
from services.config.load import load, load_verifier
from services.config.verifier import VerifierConfig
from services.errors import InputError
from services.minutes import log_each_minute
from services.run.addresses import announce_address
from services.streams.names import DEAD, SCORED, TRAJECTORIES
from services.streams.redis_cache import RedisStore
from services.streams.redis_connection import RedisConnection
from services.streams.redis_stream import RedisStream
from verifier.cache import MemoryShelf, Shelf
from verifier.minute import Minute, is_quiet
from verifier.service import serve
from verifier.worker.loop import VerifierStreams

FLAGS = ("host", "port", "processes", "tls_certificate", "tls_key")
SHELF_DEADLINE_S = 2.0  # a verdict that cannot be looked up by then is judged again

log = logging.getLogger("ratchet.verifier")


def main() -> int:
    arguments = _parser().parse_args()
    entry.end_when_asked()
    log_lines.choose(arguments.log_format)
    entry.start_logging("verifier")
    entry.watch_supervisor()
    given = {name: getattr(arguments, name) for name in FLAGS}
    flags = [f"verifier.{name}={value}" for name, value in given.items() if value is not None]
    overrides = [*arguments.overrides, *flags]
    shelf: Shelf | None = None
    run: str | None = None
    hurried: list[RedisConnection] = []
    if arguments.config is None:
        settings, streams = load_verifier(arguments.settings, overrides), None
    elif arguments.settings is not None:
        raise InputError("give a run or --settings, not both: a run has a [verifier] of its own")
    else:
        config = load(arguments.config, overrides)
        connection = entry.redis_connection(config)
        hurried.append(connection)

        def stream(name: str) -> RedisStream:
            return RedisStream(connection, config.name, name, arguments.verifier_id, config.deadlines.reclaim_idle_s)

        settings, run = config.verifier, config.name
        streams = VerifierStreams(
            stream(TRAJECTORIES),
            stream(SCORED),
            stream(DEAD),
            max_deliveries=config.redis.max_deliveries,
            renew_every_s=config.deadlines.reclaim_idle_s / 3,
            verifier_id=arguments.verifier_id,
        )
        if settings.cache.type == "redis":
            quick = entry.redis_connection(config, deadline_s=SHELF_DEADLINE_S)
            shelf = RedisStore(quick, config.name, "verdicts", settings.cache.max_entries)
    if shelf is None and settings.cache.type != "none":
        shelf = MemoryShelf(settings.cache.max_entries)
    return asyncio.run(_run(settings, streams, arguments.services_folder, shelf, run, hurried))


async def _run(
    settings: VerifierConfig,
    streams: VerifierStreams | None,
    services_folder: Path | None,
    shelf: Shelf | None,
    run: str | None,
    hurried: Sequence[RedisConnection],
) -> int:
    """hurried: whatever is away when the process is asked to end is not waited for."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_stop() -> None:
        for connection in hurried:
            connection.hurry()
        loop.call_soon_threadsafe(stop.set)

    entry.StopSignal(on_stop=on_stop)

    def on_ready(url: str) -> None:
        entry.works()
        announce_address(services_folder, "verifier", url)
        log.info("scoring on %s (its contract: %s/docs)", url, url)

    minutes = asyncio.create_task(log_each_minute(log, Minute().say, stop, quiet=is_quiet))
    try:
        await serve(settings, streams=streams, stop=stop, on_ready=on_ready, shelf=shelf, run=run)
    finally:
        minutes.cancel()
    return entry.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ratchet verifier", description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", help="the run; without it, the scoring service alone")
    parser.add_argument("--settings", type=Path, metavar="FILE.toml", help="[verifier] of a service without a run")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="verifier.key=value")
    parser.add_argument("--host", help="address to listen on; default: verifier.host, or 127.0.0.1")
    parser.add_argument("--port", type=int, help="default: verifier.port, or any free one")
    parser.add_argument("--processes", type=int, help="grader processes; default: verifier.processes, or 2")
    parser.add_argument("--tls-certificate", type=Path, metavar="PEM", help="speak HTTPS; with --tls-key")
    parser.add_argument("--tls-key", type=Path, metavar="PEM")
    parser.add_argument(
        "--verifier-id",
        default=socket.gethostname(),
        help="name of this worker on the streams, different for each; default: the host's name",
    )
    entry.add_log_format(parser)
    parser.add_argument("--services-folder", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    entry.end(main)
