"""docs/verifier.md: every row of its table of verdicts happens here, and every request on it is sent.

A row that is added to the page without a test here fails, as does a test whose row is gone.
"""

import asyncio
import json
import os
import re
import signal
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from services.config.verifier import VerifierConfig
from services.graders import OURS
from services.verifier_access import TOKENS_VARIABLE
from tests.curl import answer_to
from tests.verifier.bad_graders import REGISTRY
from tests.verifier.running import Running, running
from tests.verifier.worker.test_loop import Wiring, group, right_answers, service
from verifier.contract import ScoreItem
from verifier.grader import build_grader, load_grader
from verifier.grader_table import with_table
from verifier.grading import open_grading
from verifier.network.endpoints import Endpoints
from verifier.pool.pool import GraderPool
from verifier.registry import catalogue

PAGE = (Path(__file__).parents[2] / "docs" / "verifier.md").read_text(encoding="utf-8")


def table(first_header: str) -> list[list[str]]:
    (body,) = re.findall(rf"^\| {first_header} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in body.splitlines()]


OUTCOMES = {row[0]: row[1] for row in table("What happened")}


def odd(response: str, reference: Any = "right", grader: str = "odd", **options: Any) -> ScoreItem:
    return ScoreItem("a", grader, response, reference, options)


def combined(response: str, *parts: dict[str, Any], **options: Any) -> ScoreItem:
    return odd(response, grader="combine", parts=parts, **options)


ODD, GATE = {"grader": "odd"}, {"grader": "exact", "gate": True}
ITEMS = {
    "the answer is right": odd("right"),
    "the answer is wrong": odd("wrong"),
    "the answer is missing, malformed or cannot be read": odd("\\boxed{\\frac{1}", "1", "math"),
    "the response is longer than `limits.NAME.response_characters`": odd("x" * 101, grader="exact"),
    "the grader computes until its deadline, and the reference alone is fine": odd("spin"),
    "it is unclear, twice, whether the grader computed or was starved, and the reference alone is fine": odd("stall"),
    "the grader process crashes twice at the response, and the reference alone is fine": odd("exit"),
    "the grader needs more memory than `process_memory_mib`, and the reference alone is fine": odd("memory"),
    "a gate of `combine` is not passed": combined("raise", ODD, GATE),
    "the grader finds the reference unusable": odd("12", None, "exact"),
    "an option is unknown, or its value is not allowed": odd("12", "12", "exact", fuzzy=True),
    "the reference alone keeps the grader computing until its deadline": odd("spin", "spin"),
    "the reference alone crashes the grader process": odd("exit", "exit"),
    "the reference alone needs too much memory": odd("memory", "memory"),
    "the grader raises any other exception": odd("raise"),
    "the grader gives a reward that is not finite": odd("nan"),
    "the grader cannot be imported": odd("right", grader="missing"),
    "importing the grader ends its process": odd("right", grader="fatal_import"),
    "the deadline passes while the grader waits or hardly gets the processor": odd("sleep 60"),
    "a service that the grader asks is away, refuses or has spent its budget": odd("12", grader="remote"),
    "a part of `combine` has no verdict": combined("raise", ODD, {"grader": "exact"}),
    "a part of `combine` times out": combined("sleep 60", ODD, {"grader": "exact"}),
    "overlong shaping, and the item has no `response_tokens`": combined(
        "right", ODD, overlong={"max_tokens": 9, "buffer_tokens": 3}
    ),
}
DETAILS = {
    "the grader computes until its deadline, and the reference alone is fine": "computing; its reference alone is fine",
    "the grader process crashes twice at the response, and the reference alone is fine": "exit code 7",
    "the grader needs more memory than `process_memory_mib`, and the reference alone is fine": "more memory than",
    "a gate of `combine` is not passed": "gate exact: answer 'raise'",
    "the reference alone keeps the grader computing until its deadline": "its reference alone: no verdict within",
    "a part of `combine` has no verdict": "RuntimeError: the grader has a bug",
    "a service that the grader asks is away, refuses or has spent its budget": 'endpoint "remote" is away',
}


@pytest.fixture(scope="module")
def judged() -> dict[str, tuple[str, float | None, str]]:
    """All of them at once, by one service: verdict, reward and detail of each."""
    settings = VerifierConfig.model_validate(
        {
            "processes": 2,
            "item_deadline_s": 1.0,
            "limits": {"exact": {"response_characters": 100}, "math": {"deadline_s": 20.0}},
            "endpoints": {"remote": {"url": "http://127.0.0.1:9", "attempts": 1}},
        }
    )

    async def judge() -> dict[str, tuple[str, float | None, str]]:
        entries = await catalogue(REGISTRY | {"remote": OURS["remote"]})
        async with (
            Endpoints(settings.endpoints) as endpoints,
            open_grading(settings, endpoints, None, entries) as grading,
        ):
            scores = await grading.score(list(ITEMS.values()))
        return {name: (one.verdict, one.reward, one.detail) for name, one in zip(ITEMS, scores, strict=True)}

    return asyncio.run(judge())


@pytest.mark.parametrize("happening", ITEMS)
def test_a_verdict_is_the_one_on_the_page(happening: str, judged: dict[str, tuple[str, float | None, str]]) -> None:
    verdict, reward, detail = judged[happening]
    assert verdict == OUTCOMES[happening], detail
    assert (reward is None) == (verdict in ("error", "timeout"))
    assert DETAILS.get(happening, "") in detail


def killed_from_outside(times: int) -> str:
    """The verdict on a right response, at which the grader process is killed so often."""

    async def kill(pool: GraderPool) -> str:
        scoring = asyncio.create_task(pool.score([ScoreItem("a", "odd", "sleep 0.5", "sleep 0.5", {})]))
        dead: set[int] = set()
        while len(dead) < times:
            await asyncio.sleep(0.2)
            for process in list(pool.working | pool.slow):
                progress = process.progress()
                if progress.chunk and not progress.loading and process.pid not in dead and len(dead) < times:
                    os.kill(process.pid, signal.SIGKILL)
                    dead.add(process.pid)
        return (await scoring)[0].verdict

    async def main() -> str:
        async with GraderPool(VerifierConfig(processes=1, item_deadline_s=20.0), REGISTRY) as pool:
            return await asyncio.wait_for(kill(pool), 30)

    return asyncio.run(main())


def status(*items: dict[str, Any], headers: dict[str, str] | None = None, **settings: Any) -> str:
    with running(**settings) as verifier:
        url = f"{verifier.url}/v1/score"
        return str(httpx.post(url, json={"items": items}, headers=headers, timeout=30).status_code)


ITEM: dict[str, Any] = {"id": "a", "grader": "odd", "response": "right", "reference": "right"}


def full_queue() -> str:
    with running(max_queued_items=4, item_deadline_s=20.0, slow_processes=0) as verifier:
        slow = {"items": [ITEM | {"response": "sleep 1"}] * 4}
        asking = threading.Thread(
            target=httpx.post, args=(f"{verifier.url}/v1/score",), kwargs={"json": slow, "timeout": 30}
        )
        asking.start()
        while "ratchet_verifier_queued_items 4.0" not in httpx.get(f"{verifier.url}/metrics").text:
            assert asking.is_alive()
        answer = httpx.post(f"{verifier.url}/v1/score", json={"items": [ITEM]}, timeout=30)
        asking.join()
        assert float(answer.headers.get("Retry-After", 0)) >= 1
        return str(answer.status_code)


def without_a_token() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKENS_VARIABLE, "somebody=0123456789abcdef")
        return status(ITEM, authentication="bearer")


def slow() -> str:
    def body() -> Iterator[bytes]:
        yield b"{"
        time.sleep(1)

    with running(read_deadline_s=0.2) as one:
        return str(httpx.post(f"{one.url}/v1/score", content=body(), timeout=30).status_code)


def asked_again() -> str:
    """A service that has a timeout for one of two responses, the first time."""
    asked: list[int] = []

    def answer(number: int, request: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        asked.append(len(request["items"]))
        given = right_answers(request)
        if number == 0:
            given["results"][1] |= {"verdict": "timeout", "reward": None}
        return 200, {}, given

    wiring = Wiring()
    wiring.feed(group(1, "right", "wrong"))
    with service(answer) as url, running(wiring.streams, url=url, attempts=2):
        scored, dead = wiring.settled(1)
    return "retried" if scored and not dead and asked == [2, 1] else f"asked for {asked}"


def given_up() -> str:
    wiring = Wiring()
    wiring.feed(group(1, "right", "raise", grader="odd"), group(2, "right"))
    with running(wiring.streams, attempts=1):
        scored, dead = wiring.settled(2)
    assert set(scored) == {"train-2"}
    return "dead" if "in 1 attempts; response 1: error" in dead["train-1"].cause else dead["train-1"].cause


def service_away() -> str:
    wiring = Wiring()
    wiring.feed(group(1, "right"))
    with running() as gone:
        url = gone.url
    with running(wiring.streams, url=url, attempts=1):
        time.sleep(1.0)
        assert wiring.dead.peek(1) == wiring.scored.peek(1) == []
        with running(port=int(url.rpartition(":")[2])):
            scored, dead = wiring.settled(1)
    return "waited for" if scored and not dead else "lost"


def starved_once() -> str:
    with tempfile.TemporaryDirectory() as folder, running(item_deadline_s=1.0) as verifier:
        response = f"stall {folder}/looks"
        asked = {"items": [ITEM | {"response": response, "reference": response}]}
        (result,) = httpx.post(f"{verifier.url}/v1/score", json=asked, timeout=30).json()["results"]
    return str(result["verdict"])


OTHERS: dict[str, Callable[[], str]] = {
    "a grader process is killed from outside, once": lambda: killed_from_outside(1),
    "it is unclear, once, whether the grader computed or was starved": starved_once,
    "three grader processes are killed from outside at one response": lambda: killed_from_outside(3),
    "the request names a grader that does not exist": lambda: status(ITEM | {"grader": "maths"}),
    "the request is malformed or nested too deeply": lambda: status(ITEM | {"reference": [[[[[]]]]]}, max_depth=4),
    "the request has too many bytes or items": lambda: status(ITEM, ITEM, max_batch_items=1),
    "the queue is full": full_queue,
    "the request has none of the service's tokens": without_a_token,
    "the request does not come within `read_deadline_s`": slow,
    "the request says that it is not JSON": lambda: status(ITEM, headers={"Content-Type": "text/plain"}),
    "the request has more than 100 headers, or 16 KiB of them": lambda: status(ITEM, headers={"X-Long": "x" * 2**14}),
    "a group has an error or a timeout": asked_again,
    "it still has one after `attempts`": given_up,
    "the scoring service or the stream server is away": service_away,
}


@pytest.mark.parametrize("happening", OTHERS)
def test_an_outcome_is_the_one_on_the_page(happening: str) -> None:
    assert OTHERS[happening]() == OUTCOMES[happening]


def test_every_row_of_the_policy_is_tested() -> None:
    assert set(OUTCOMES) == set(ITEMS) | set(OTHERS)
    assert not set(ITEMS) & set(OTHERS)
    assert set(DETAILS) <= set(ITEMS)


def test_every_grader_is_on_the_page_with_its_options() -> None:
    shown = {row[0].strip("`"): re.findall(r"`(\w+)`", row[2]) for row in table("name")}
    assert shown == {name: list(load_grader(location).__struct_fields__) for name, location in OURS.items()}
    assert with_table(PAGE, OURS) == PAGE, "run: python -m verifier.grader_table docs/verifier.md"


def test_the_graders_that_the_page_calls_cached_are_cached() -> None:
    (names,) = re.findall(r"far more than a lookup \(([^)]*)\)", PAGE)
    cached = {name for name in OURS if load_grader(OURS[name]).cached}
    assert set(re.findall(r"`(\w+)`", names)) == cached


def test_the_settings_on_the_page_are_settings() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    VerifierConfig.model_validate(tomllib.loads(block)["verifier"])


def test_the_combination_on_the_page_can_be_built() -> None:
    (block,) = [block for block in blocks("json") if block.startswith('{"parts"')]
    plan: Any = build_grader(load_grader(OURS["combine"]), json.loads(block))
    for part in plan.parts:
        build_grader(load_grader(OURS[part.grader]), part.options)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


REQUESTS = re.findall(r"^```bash\n(curl [^\n]*8700[^\n]*)\n```\n\n```json\n([^\n]*)\n", PAGE, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def alone() -> Iterator[Running]:
    with running(item_deadline_s=30.0) as verifier:
        yield verifier


@pytest.mark.parametrize(("command", "answer"), REQUESTS)
def test_the_requests_on_the_page_are_answered_as_it_says(alone: Running, command: str, answer: str) -> None:
    said = answer_to(command.replace("http://127.0.0.1:8700", alone.url))
    assert without_times(json.loads(said)) == without_times(json.loads(answer))


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    for result in answer.get("results", []):
        del result["elapsed_s"]
    return answer


def test_there_are_requests_on_the_page() -> None:
    assert len(REQUESTS) == 3
    assert msgspec.json.decode(REQUESTS[0][1])
