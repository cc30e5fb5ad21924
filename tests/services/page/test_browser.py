"""The page in a real Chromium: what it shows of a run, and that nothing a model wrote runs in it."""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from rollout.conversation import metrics
from rollout.environments import Start
from rollout.environments import Turn as Answer
from services.health import HealthServer
from services.page.app import create_app
from services.page.listening import address, listen
from services.run.addresses import announce_address
from services.run.json_lines import JsonLines
from services.run.kept_groups import write_step
from tests.services.page.conftest import Page
from tests.services.page.written import step_row, talked

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


def test_conversations_their_tools_and_the_sources_are_shown(served: str, page: Page, tmp_path: Path) -> None:
    metrics.TURNS.observe(3)
    tool = {"function": {"name": "calculator"}}
    metrics.count_tools(
        Answer(info={"tool_errors": ["calculator"], "tool_seconds": {"calculator": [0.25]}}), Start([], [tool])
    )
    source = {"share": 0.75, "groups": 3, "dropped_groups": {"stale": 1}, "sequences": 6, "tokens": 1234567}
    source |= {"mean_reward": 0.5, "mean_shaped_reward": 0.5, "pass_rate": 0.25}
    with JsonLines(page.folder.steps) as lines:
        lines.write(**step_row(4, sources={"easy <b>": source}))
    with JsonLines(page.folder.evaluations) as lines:
        lines.write(attempt=1, policy_version=4, avg_at_k=0.5, sources={"easy <b>": {"avg_at_k": 0.625}})
    replica = HealthServer("127.0.0.1", 0, ready=lambda: True)
    try:
        announce_address(page.folder.services, "rollout-0", replica.url)
        page.watch.look()
        document = shown(served, tmp_path / "profile")
    finally:
        replica.close()
    assert "easy &lt;b&gt;</td>" in document
    assert '<td class="n">0.625</td>' in document
    assert '<td class="n wide">1,234,567</td>' in document  # as services/numbers.py writes it
    assert "turns each on average" in document
    assert "% of their time they wait for the environment" in document
    assert re.search(r"<td>calculator</td><td class=\"n\">\d+</td>", document)


def test_a_conversation_is_shown_with_the_words_of_its_environment(served: str, page: Page, tmp_path: Path) -> None:
    write_step(page.folder.groups, 5, [talked(5, 9)], 2**20)
    document = shown(f"{served}&view=groups&step=5&group=train-9&sample=1", tmp_path / "profile")
    assert "7 tokens in 3 turns" in document
    assert "Rewards by turn: –, 0.5, 1" in document
    assert 'class="read" title="the environment, before turn 2">tool: 84 &lt;script&gt;' in document
    assert 'class="read again" title="the environment, before turn 3: the sequence begins again"' in document
    assert " of the environment: read, not trained on" in document
    assert "owned</title>" not in document


def test_the_list_keeps_its_filter_in_the_address(served: str, tmp_path: Path) -> None:
    document = shown(f"{served}&view=groups&outcome=dropped", tmp_path / "profile")
    assert "1 groups of the 2 steps that are kept" in document
    assert 'href="?view=groups&amp;outcome=dropped&amp;step=2&amp;group=train-2"' in document
    assert "train-3" not in document
