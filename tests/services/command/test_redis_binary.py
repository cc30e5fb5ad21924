"""Which redis-server is started."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from services.command.redis_binary import find_binary
from services.errors import InputError


def server(folder: Path, version: str) -> str:
    folder.mkdir()
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0'\n", encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_the_one_on_the_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = server(tmp_path / "bin", "7.2.4")
    monkeypatch.setattr(shutil, "which", lambda _: there)
    assert find_binary() == (Path(there), (7, 2))


def test_one_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = server(tmp_path / "bin", "6.0.16")
    monkeypatch.setattr(shutil, "which", lambda _: there)
    assert find_binary()[0] != Path(there)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"no redis-server of version 6\.2 or later is on PATH"):
        find_binary()
