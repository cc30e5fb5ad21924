"""The page in a real Chromium: what it shows of a run, and that nothing a model wrote runs in it."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from services.page.app import create_app
from services.page.listening import address, listen
from tests.services.page.conftest import Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")


@pytest.fixture
def served(page: Page) -> Iterator[str]:
    """The page on a port, and its address with the token."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(create_app(page.watch, page.token), log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield address(listener, page.token)
    server.should_exit = True
    thread.join(10)


def shown(url: str, profile: Path, *options: str) -> str:
    """The document after its scripts have run."""
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    command += ["--virtual-time-budget=4000", "--timeout=8000", "--window-size=390,844", *options, "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_page_shows_the_run(served: str, page: Page, tmp_path: Path) -> None:
    page.watch.look()
    document = shown(served, tmp_path / "profile")
    assert "step 3 of" in document
    assert 'aria-label="Pass rate, steps 0 to 3: train 0.3, held-out 0.25 @0"' in document
    assert 'aria-label="Requeue train-7"' in document
    assert "<title>step 3" in document
    assert "&lt;script&gt;" in document  # the cause of a death, as text
    assert "<img" not in document
    assert "owned</title>" not in document


def test_what_a_model_wrote_is_text(served: str, tmp_path: Path) -> None:
    document = shown(f"{served}&view=groups&step=4&group=train-3&color=weight", tmp_path / "profile")
    assert "Group train-3 of step 4" in document
    assert document.count("&lt;script&gt;document.title='owned'&lt;/script&gt;") >= 4  # prompt, reason, token, text
    assert "<img" not in document
    assert "owned</title>" not in document
    assert 'style="background-color: rgba(45, 125, 210' in document  # tokens of weight 1.25


def test_the_list_keeps_its_filter_in_the_address(served: str, tmp_path: Path) -> None:
    document = shown(f"{served}&view=groups&outcome=dropped", tmp_path / "profile")
    assert "1 groups of the 2 steps that are kept" in document
    assert 'href="?view=groups&amp;outcome=dropped&amp;step=2&amp;group=train-2"' in document
    assert "train-3" not in document
