"""The live page beside a run: a process that the run does not need, so that its end is not the run's."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from services.command.rooms import PAGE, SAFE_PATH, python_module
from services.entry import REDIS_URL_VARIABLE, SUPERVISED_VARIABLE
from services.errors import InputError
from services.page.access import token_of
from services.page.listening import address, listen
from services.run.folder import RunFolder

STOP_S = 3.0
PAGE_LOG = "page.log"


@contextlib.contextmanager
def page_beside(folder: RunFolder, redis_url: str, console: Console) -> Iterator[None]:
    """Serve the page of this run on a free port of this machine, and print its address. Where that cannot be done, the run goes
    on without it.

    Waits for: the page's process to end, once the run is over.
    Until: STOP_S; then it is killed.
    Ended by: its end.
    Metric: none; the run is over.
    """
    try:
        token = token_of(folder.page_token)
        listener = listen("127.0.0.1", 0)
    except InputError as fault:
        console.print(Text(f"no live page: {fault}"), soft_wrap=True)
        yield
        return
    folder.logs.mkdir(parents=True, exist_ok=True)
    with (folder.logs / PAGE_LOG).open("ab") as log:
        page = subprocess.Popen(
            python_module(PAGE, str(folder.path), "--socket", str(listener.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **SAFE_PATH, REDIS_URL_VARIABLE: redis_url, SUPERVISED_VARIABLE: str(os.getpid())},
            pass_fds=[listener.fileno()],
            start_new_session=True,  # Ctrl-C is for the supervisor
        )
    console.print(Text(f"live page {address(listener, token)}"), soft_wrap=True)
    listener.close()
    try:
        yield
    finally:
        page.terminate()
        page.send_signal(signal.SIGCONT)  # one that is suspended would not hear
        try:
            page.wait(STOP_S)
        except subprocess.TimeoutExpired:
            page.kill()
            page.wait()
