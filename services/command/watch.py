"""Shows something again and again until Ctrl-C: in place on a terminal, and else a block each time that it changed."""

from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.live import Live

from services.clock import sleep


def watch(look: Callable[[], RenderableType], console: Console, every_s: float) -> None:
    """Look and show, without end; Ctrl-C ends it.

    Waits for: time to pass.
    Until: every_s each time.
    Ended by: Ctrl-C.
    Metric: none; a command serves none.
    """
    if not console.is_terminal:
        shown = ""
        while True:
            with console.capture() as capture:
                console.print(look())
            if capture.get() != shown:
                shown = capture.get()
                console.out(shown, end="", highlight=False)
            sleep(every_s)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(look(), refresh=True)
            sleep(every_s)
