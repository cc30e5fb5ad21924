"""Takes the pictures of docs/pictures that show a run: its terminals and its page, of one real run of the bundled example.

    python -m tests.system.pictures [--into docs/pictures] [--at 60] [--replicas 2]

The terminals are 120 by 40 and show what a user's would: their bytes go through a terminal emulator, pyte, which this alone needs
(`pip install -e ".[pictures]"`). The page is shown by a Chromium. A few minutes on two cores. Look at what it made.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from services.run.folder import RunFolder
from tests.chaos.stage import EXAMPLE, ROOT, last_step, make_example
from tests.system.chromium import Chromium
from tests.system.terminal import Terminal

RATCHET = str(Path(sys.executable).parent / "ratchet")
RUN_S = 1800.0
NONE = 99
"""No response has this number: none is open."""
COLORED = "[...document.querySelectorAll('.tokens span')].findIndex((one) => one.style.backgroundColor)"
"""The number of the first token with a color; -1: none has one."""
LOOK_S = 7.0
"""How long a view that looks every two seconds is followed before its picture."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=ROOT / "docs/pictures", help="the folder of the pictures")
    parser.add_argument("--at", type=int, default=60, help="the step at which the run is shown")
    parser.add_argument("--replicas", type=int, default=2, help="replicas of the run")
    arguments = parser.parse_args()
    make_example()
    arguments.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as scratch:
        take(Path(scratch), arguments.into, arguments.at, arguments.replicas)


def take(scratch: Path, into: Path, at: int, replicas: int) -> None:
    """Run the example in a folder of its own and write every picture."""
    run_file = EXAMPLE.relative_to(ROOT) / "addition.toml"
    shutil.copytree(EXAMPLE, (scratch / run_file).parent)  # so that paths read as they do in a clone
    folder = RunFolder(scratch / "runs/addition")
    with terminal("up", str(run_file), "--set", f"rollout.replicas={replicas}", scratch=scratch) as up:
        wait(lambda: last_step(folder) >= at, up)
        up.picture(into / "terminal-up.png")
        url = re.search(r"live page (http\S+)", up.text())
        for name, command in (("status", ("status", "--watch")), ("top", ("top",))):
            with terminal(*command, str(folder.path.relative_to(scratch)), scratch=scratch) as view:
                wait(partial(shows_something, view), up)
                time.sleep(LOOK_S)
                view.picture(into / f"terminal-{name}.png")
        if url is None:
            raise SystemExit(f"the address of the page is not on the terminal:\n{up.text()}")
        with Chromium() as browser:
            page_of_the_run(browser, url[1], into)
        wait(lambda: up.process.poll() is not None, None)
        up.picture(into / "terminal-report.png")
    finished(scratch, folder, into)


def shows_something(shown: Terminal) -> bool:
    return shown.text() != ""


@contextmanager
def terminal(*command: str, scratch: Path) -> Iterator[Terminal]:
    environment = {name: value for name, value in os.environ.items() if name != "RATCHET_REDIS_URL"}
    with Terminal([RATCHET, *command], cwd=scratch, environment=environment) as shown:
        yield shown


def wait(until: Callable[[], bool], up: Terminal | None) -> None:
    """Wait for something of the run, which is not to end before."""
    end_s = time.monotonic() + RUN_S
    while not until():
        if time.monotonic() > end_s or (up is not None and up.process.poll() is not None):
            raise SystemExit(f"the run did not come so far:\n{up.text() if up is not None else ''}")
        time.sleep(0.1)


def page_of_the_run(browser: Chromium, url: str, into: Path) -> None:
    browser.show(1265, 1000)
    browser.open(url)
    browser.until("document.getElementById('waits').textContent !== ''")
    time.sleep(LOOK_S)  # rates need two looks
    browser.show(1265, int(browser.value("document.documentElement.scrollHeight")))
    browser.picture(into / "page-run.png")


def finished(scratch: Path, folder: RunFolder, into: Path) -> None:
    """Pictures of the page after the run: a group with right and wrong answers, and a phone in the dark theme."""
    command = [RATCHET, "page", str(folder.path)]
    with subprocess.Popen(command, cwd=scratch, stdout=subprocess.PIPE, text=True) as page, Chromium() as browser:
        try:
            assert page.stdout is not None
            url = page.stdout.readline().split()[-1]
            browser.show(1265, 870)
            browser.open(f"{url}&view=groups&verdict=mixed&outcome=trained&step_to=30")
            group = browser.until("document.querySelector('tbody a')?.getAttribute('href')")
            browser.open(f"{url}&{group.removeprefix('?')}&color=gap&sample={NONE}")
            browser.until("document.querySelector('summary') !== null")
            wrong = browser.value(
                "[...document.querySelectorAll('summary')].findIndex((one) => one.querySelector('.bad'))"
            )
            browser.open(f"{url}&{group.removeprefix('?')}&color=gap&sample={wrong}")
            browser.until("document.querySelector('.tokens') !== null")
            browser.value("document.querySelector('.tokens').focus()")
            for _ in range(1 + max(0, browser.value(COLORED))):
                browser.press("ArrowRight")
            browser.picture(into / "page-group.png")
            browser.show(390, 844, dark=True)
            browser.open(url)
            browser.until("document.getElementById('waits').textContent !== ''")
            time.sleep(1.0)
            browser.picture(into / "page-phone.png")
        finally:
            page.terminate()


if __name__ == "__main__":
    main()
