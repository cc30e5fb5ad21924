"""POST /v1/run: a program runs in the sandbox, under the tokens and the limits of the service."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from services.verifier_access import TOKENS_VARIABLE
from tests.verifier.running import Running, running
from tests.verifier.sandbox.machine import sandbox_or_skip

TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def verifier() -> Iterator[Running]:
    sandbox_or_skip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKENS_VARIABLE, f"ada={TOKEN}")
        with running(authentication="bearer", max_body_bytes=20_000, processes=2) as one:
            yield one


def post(verifier: Running, *, token: str = TOKEN, **body: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.post(f"{verifier.url}/v1/run", json=body, headers=headers, timeout=30)


def test_a_program_prints_and_ends(verifier: Running) -> None:
    ran = post(verifier, code="import sys\nprint(x)\nsys.exit(3)", earlier=["x = 'seen'\nprint('not shown')"]).json()
    assert ran == {"output": "seen\n", "errors": "", "exit_code": 3, "fault": ""}
    ran = post(verifier, code="raise ValueError('no')").json()
    assert (ran["output"], ran["exit_code"]) == ("", 1)
    assert ran["errors"].endswith("ValueError: no\n")
    assert "time over" in post(verifier, code="while True: pass", wall_s=0.5).json()["fault"]


def test_it_sees_no_secret_no_network_and_none_of_our_files(verifier: Running) -> None:
    code = (
        "import os, socket\n"
        "print([name for name in os.environ if 'RATCHET' in name], os.path.exists('/root'), os.path.exists('/proc'))\n"
        f"print({__file__!r} and os.path.exists({__file__!r}))\n"
        "try:\n    socket.create_connection(('127.0.0.1', 80), 1)\nexcept OSError: print('closed')"
    )
    assert post(verifier, code=code).json()["output"] == "[] False False\nFalse\nclosed\n"


def test_it_asks_for_a_token(verifier: Running) -> None:
    assert post(verifier, token="another-one-16ch", code="1").status_code == 401


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "code"),
        ({"code": 3}, 422, "$.code"),
        ({"code": "1", "wall_s": 0}, 422, "wall_s"),
        ({"code": "1", "wall_s": 99.0}, 422, "max_wall_s"),
        ({"code": "1", "memory_mb": 9}, 422, "memory_mb"),
        ({"code": "1", "shell": True}, 422, "shell"),
        ({"code": "1" * 30_000}, 413, "max_body_bytes"),
    ],
)
def test_what_cannot_be_run_is_refused(verifier: Running, body: dict[str, Any], status: int, said: str) -> None:
    answer = post(verifier, **body)
    assert answer.status_code == status
    assert said in answer.text


def test_more_programs_than_may_wait_are_refused_and_the_others_run(verifier: Running) -> None:
    with ThreadPoolExecutor(40) as pool:
        codes = list(pool.map(lambda _: post(verifier, code="1 + 1").status_code, range(40)))
    assert set(codes) <= {200, 503}
    assert codes.count(200) >= 32
