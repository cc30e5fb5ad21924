"""The page as a process: `ratchet page FOLDER`, and what `ratchet up` starts beside a run."""

import argparse
import socket
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from services.config.load import load
from services.entry import DONE, Parser, StopSignal, add_overrides, end, end_when_asked, start_logging, watch_supervisor
from services.errors import InputError
from services.http_server import HttpServer
from services.page.access import token_of
from services.page.app import create_app
from services.page.listening import address, listen
from services.page.watch import Watch
from services.run.folder import RunFolder


def main() -> int:
    """Serve the page until it is stopped; the exit code."""
    parser = Parser(prog="ratchet page", description="Show a run in a browser.")
    parser.add_argument(
        "folder",
        type=Path,
        help="the run's folder, such as runs/addition, or its run file: the folder is made if it is missing",
    )
    add_overrides(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=0, help="port (default: any free one)")
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="where a service is that does not write its address into the folder; may be repeated",
    )
    parser.add_argument(
        "--shown",
        metavar="URL",
        help="how browsers reach the page, where that is not where it listens, as http://127.0.0.1:8123",
    )
    parser.add_argument(
        "--prometheus", metavar="URL", help="show the alerts of this Prometheus, as http://127.0.0.1:9090"
    )
    parser.add_argument(
        "--socket", type=int, help=argparse.SUPPRESS
    )  # one that listens already: `ratchet up` has made it
    arguments = parser.parse_args()
    end_when_asked()
    start_logging()
    watch_supervisor()
    folder = run_folder(arguments.folder, arguments.overrides)
    watch = Watch(folder, arguments.prometheus, named(arguments.service))
    token = token_of(folder.page_token)
    server = HttpServer(
        uvicorn.Config(
            create_app(watch, token),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )

    def end_serving() -> None:
        server.should_exit = True

    StopSignal(on_stop=end_serving)  # before the address is told to anybody
    listener = socket.socket(fileno=arguments.socket) if arguments.socket is not None else None
    if listener is None:
        listener = listen(arguments.host, arguments.port)
        print(f"page {address(listener, token, arguments.shown)}", flush=True)
    server.run(sockets=[listener])
    watch.close()
    return DONE


def run_folder(given: Path, overrides: Sequence[str] = ()) -> RunFolder:
    """The folder, or that of the run whose file is given, which is then made: a page may be there before its run.

    overrides: see `load`. Raises InputError if they are given for a folder, or the folder cannot be made.
    """
    if given.suffix != ".toml":
        if overrides:
            raise InputError(
                f"--set overrides a setting of a run file, and {given} is not one: its name ends with .toml"
            )
        return RunFolder(given)
    folder = RunFolder(load(given, overrides).folder)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"{given}: the run's folder {folder.path} cannot be made: {fault.strerror}") from fault
    return folder


def named(services: list[str]) -> dict[str, str]:
    """Addresses by name. Raises InputError for one that is not NAME=URL."""
    found = {}
    for given in services:
        name, _, url = given.partition("=")
        if not name or not url.startswith(("http://", "https://")):
            raise InputError(f"--service {given} is not NAME=URL; write for example learner=http://learner:9101")
        found[name] = url.rstrip("/")
    return found


if __name__ == "__main__":
    end(main)
