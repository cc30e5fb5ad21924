"""Real ranks for trials of the engine, forked from a process that has the imports behind it: those take longer than a trial."""

import os
import socket
import time
from collections.abc import Callable

from tests.forking import forking

FAILED = "a rank failed; its error is printed above"


def run_ranks(trial: Callable[..., None], *arguments: object, ranks: int, within_s: float = 300) -> None:
    """`trial(*arguments)` on every rank at once, with what a launcher tells its ranks. Raises when one fails or hangs."""
    processes = [
        forking().Process(target=_on_a_rank, args=(environment, trial, arguments)) for environment in _told(ranks)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + within_s
    try:
        while any(process.exitcode is None for process in processes):
            assert time.monotonic() < end, f"a rank was not done within {within_s} s"
            assert not any(process.exitcode for process in processes), FAILED
            time.sleep(0.05)
        assert not any(process.exitcode for process in processes), FAILED
    finally:
        for process in processes:
            process.kill()
            process.join()


def _told(ranks: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    everyone = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**everyone, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _on_a_rank(environment: dict[str, str], trial: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.environ.update(environment)
    trial(*arguments)
