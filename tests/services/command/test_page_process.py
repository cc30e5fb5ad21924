"""The page beside a run: a real process that answers while the run lasts and is gone after it."""

import re
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from services.command.page_process import page_beside
from services.run.folder import RunFolder
from tests.services.page.written import write_run


def test_the_page_answers_at_the_printed_address_and_ends_with_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_run(tmp_path)
    with page_beside(folder, "redis://127.0.0.1:9/0", Console()):
        (address,) = re.findall(r"live page (http://127\.0\.0\.1:\d+/\?token=\S+)", capsys.readouterr().out)
        with httpx.Client(timeout=30.0, follow_redirects=True, trust_env=False) as browser:
            assert "Ratchet" in browser.get(address).text
            assert browser.get(f"{address.partition('?')[0]}api/state").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(address, trust_env=False)


def test_a_run_goes_on_without_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path)
    folder.page_token.touch()
    with page_beside(folder, "redis://127.0.0.1:9/0", Console()):
        pass
    said = " ".join(capsys.readouterr().out.split())
    assert "no live page: " in said
    assert "is empty; delete it, and a new token is made" in said
