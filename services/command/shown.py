"""How figures of a run are shown on a terminal."""

from pathlib import Path

from rich.console import Console


class _Terminal(Console):
    """A console whose reader may leave, as `| head` does: the command then ends as every other one (services/entry.py)."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def terminal() -> Console:
    """The console that a command prints on."""
    return _Terminal()


def place(path: Path) -> Path:
    """The path as a user would type it here: relative to the current folder where it is below it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


BARS = " ▁▂▃▄▅▆▇█"
PLAIN_BARS = " .:-=+*%#"
"""For terminals whose encoding has no blocks."""


def sparkline(values: list[float], width: int, bars: str = BARS) -> str:
    """Draw values in 0..1 as bars, averaged into at most `width` of them."""
    size = max(1, -(-len(values) // width))
    means = [sum(values[i : i + size]) / len(values[i : i + size]) for i in range(0, len(values), size)]
    return "".join(bars[min(8, max(0, round(value * 8)))] for value in means)


def bars_for(console: Console) -> str:
    """The bars that this console can show."""
    return BARS if console.encoding.startswith("utf") else PLAIN_BARS


def duration(seconds: float) -> str:
    """Such as 42 s, 7 min or 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
