"""A command in a terminal of its own, and a picture of what stands on it."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import matplotlib
import pyte
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 120, 40
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
"""DejaVu Sans Mono, which has bars and lines that join."""
FONT_PX = 15
MARGIN_PX = 12
BACKGROUND, FOREGROUND = "#1e1e1e", "#d8d8d8"
COLORS = {
    "black": "#1e1e1e",
    "red": "#f07178",
    "green": "#98c379",
    "brown": "#e5c07b",  # what pyte calls yellow
    "blue": "#61afef",
    "magenta": "#c678dd",
    "cyan": "#56b6c2",
    "white": "#d8d8d8",
    "brightblack": "#8b8b8b",
}
"""Names of pyte -> colors; bright ones that are not here are those without `bright`."""
QUIET_S = 0.15
"""A terminal that gets nothing for this long shows something whole."""
FAINT, PALETTE, BRIGHT_BLACK = 2, 5, 90
"""Codes of a terminal's SGR sequence."""


class _Screen(pyte.Screen):
    """A screen that shows faint text in gray, as terminals do; pyte leaves it as it is."""

    def select_graphic_rendition(self, *codes: int, **more: Any) -> None:
        pairs = zip((None, *codes), codes, strict=False)
        super().select_graphic_rendition(
            *(BRIGHT_BLACK if code == FAINT and before != PALETTE else code for before, code in pairs), **more
        )


class Terminal:
    """Runs a command in a pseudo-terminal and follows what it shows. Ends the command with the block."""

    def __init__(self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> None:
        self._screen = _Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._guard = threading.Lock()
        self._came_s = time.monotonic()
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
            start_new_session=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.interrupt()
        os.close(self._ours)

    def interrupt(self) -> None:
        """Ctrl-C, until the command has ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(timeout=120)
        self._reader.join(timeout=10)

    def text(self) -> str:
        """What stands on it, in lines."""
        with self._guard:
            return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def picture(self, path: Path) -> None:
        """Write what stands on it as a PNG, once nothing more comes for a moment."""
        while time.monotonic() - self._came_s < QUIET_S:
            time.sleep(0.01)
        with self._guard:
            _drawn(self._screen).save(path, optimize=True)

    def _read(self) -> None:
        while True:
            try:
                came = os.read(self._ours, 65536)
            except OSError:  # the last process that had it open has ended
                return
            if not came:
                return
            with self._guard:
                self._stream.feed(came)
                self._came_s = time.monotonic()


def _drawn(screen: pyte.Screen) -> Image.Image:
    fonts = [ImageFont.truetype(str(FONTS / f"DejaVuSansMono{style}.ttf"), FONT_PX) for style in ("", "-Bold")]
    width, height = round(fonts[0].getlength("M")), sum(fonts[0].getmetrics())
    lines = max((row + 1 for row, line in enumerate(screen.display) if line.strip()), default=1)
    image = Image.new("RGB", (screen.columns * width + 2 * MARGIN_PX, lines * height + 2 * MARGIN_PX), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for row in range(lines):
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            front, back = _color(cell.fg, FOREGROUND), _color(cell.bg, BACKGROUND)
            front, back = (back, front) if cell.reverse else (front, back)
            x, y = MARGIN_PX + column * width, MARGIN_PX + row * height
            if back != BACKGROUND:
                draw.rectangle((x, y, x + width - 1, y + height - 1), fill=back)
            if cell.data.strip():
                draw.text((x, y), cell.data, fill=front, font=fonts[cell.bold])
    return image.quantize(64)


def _color(name: str, default: str) -> str:
    if name == "default":
        return default
    return COLORS.get(name) or COLORS.get(name.removeprefix("bright")) or f"#{name}"
