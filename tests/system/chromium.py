"""A Chromium without a window, driven over its own protocol, and pictures of what it shows."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import httpx
import websockets.sync.client
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LONGEST_S = 30.0


class Chromium:
    """One window without a history. Ends with its block."""

    def __init__(self) -> None:
        assert CHROMIUM is not None, "no Chromium is installed (Debian: apt-get install chromium)"
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={self._profile.name}"]
        command += ["--hide-scrollbars", "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        listening = next(found for line in self._process.stderr if (found := re.search(r"ws://([^/]+)/", line)))
        opened = httpx.put(f"http://{listening[1]}/json/new?about:blank", trust_env=False).json()
        self._page = websockets.sync.client.connect(opened["webSocketDebuggerUrl"], proxy=None, max_size=2**26)
        self._asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._page.close()
        self._process.terminate()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._profile.cleanup()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to a command of the DevTools protocol. Raises RuntimeError with its words if it refuses."""
        self._asked += 1
        self._page.send(json.dumps({"id": self._asked, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._page.recv(timeout=LONGEST_S))
            if answer.get("id") == self._asked:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def show(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window in pixels, and what theme its user likes."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        self.ask("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """What JavaScript says of this."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of this once it is true. Raises TimeoutError."""
        end_s = time.monotonic() + LONGEST_S
        while not (found := self.value(expression)):
            if time.monotonic() > end_s:
                raise TimeoutError(f"it never came true: {expression}")
            time.sleep(0.1)
        return found

    def press(self, key: str) -> None:
        """Press a key such as ArrowRight on what has the focus."""
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key)

    def picture(self, path: Path) -> None:
        """Write what the window shows as a PNG of at most 128 colors."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))
        with Image.open(path) as image:
            few = image.convert("RGB").quantize(128)
        few.save(path, optimize=True)
