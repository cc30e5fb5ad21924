"""The bundled example, made once, and a way to call `ratchet` as a user does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RATCHET = str(Path(sys.executable).parent / "ratchet")

Ratchet = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def example() -> Path:
    """examples/addition with its data and its starting model."""
    folder = ROOT / "examples/addition"
    subprocess.run([sys.executable, str(folder / "make_example.py")], check=True)
    return folder


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Without a Redis that happens to be configured on this machine. With a rank, as on a machine that a launcher has set
    up: it is not the learner's."""
    own = {name: value for name, value in os.environ.items() if name != "RATCHET_REDIS_URL"}
    return own | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture(scope="session")
def ratchet(environment: dict[str, str]) -> Ratchet:
    def call(*arguments: str | Path, within_s: float = 60, **changes: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [RATCHET, *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            timeout=within_s,
            env=environment | changes,
            cwd=ROOT,
        )

    return call
