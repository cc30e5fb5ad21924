"""The scoring service of the same process, asked without a socket, behaves as it does over HTTP."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.verifier.running import running
from tests.verifier.worker.test_loop import Wiring, group, verdicts
from verifier.worker.own_service import OwnService


def test_no_request_of_the_worker_comes_over_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "AsyncHTTPTransport", None)  # what would open one
    wiring = Wiring()
    wiring.feed(*(group(number, "right", "wrong") for number in range(20)))
    with running(wiring.streams):
        scored, dead = wiring.settled(20)
    assert not dead
    assert verdicts(scored["train-3"]) == ["correct", "incorrect"]


def test_a_grader_that_is_unknown_harms_no_other_group() -> None:
    wiring = Wiring()
    wiring.feed(group(1, "right", "wrong"), group(2, "right", "wrong", grader="nobody's"))
    with running(wiring.streams, attempts=1):
        scored, dead = wiring.settled(2)
    assert verdicts(scored["train-1"]) == ["correct", "incorrect"]
    assert "HTTP 422: unknown grader" in dead["train-2"].cause


def asked(app: Any, within_s: float = 5.0) -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with httpx.AsyncClient(transport=OwnService(app)) as http:
            return await http.post("http://own/v1/score", content=b"{}", timeout=httpx.Timeout(within_s))

    return asyncio.run(scenario())


def test_a_fault_of_the_service_is_an_answer_and_no_answer_is_a_timeout() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a bug")

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    assert asked(broken).status_code == 500
    with pytest.raises(httpx.ReadTimeout, match=r"no answer within 0\.05 s"):
        asked(silent, 0.05)
