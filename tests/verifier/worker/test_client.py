"""The client of a scoring service, where no service is needed: times, addresses and what it says of an answer."""

import asyncio

import httpx
import pytest

from services.config.verifier import VerifierConfig
from services.errors import InputError
from verifier.contract import ScoreItem
from verifier.worker.client import LONGEST_RETRY_AFTER_S, ScoringClient, describe, retry_after_s, score_url


@pytest.mark.parametrize("url", ["scorer:8000", "ftp://scorer", "http://", "http://[::1", ""])
def test_a_malformed_url_is_named(url: str) -> None:
    with pytest.raises(InputError, match=r"verifier\.url"):
        score_url(url)


def test_items_go_to_the_path_of_the_contract() -> None:
    assert score_url("https://scorer:8000/team/") == "https://scorer:8000/team/v1/score"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("1e9", LONGEST_RETRY_AFTER_S), ("-1", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), (None, 0.0)],
)
def test_retry_after_is_seconds_within_bounds(header: str | None, seconds: float) -> None:
    headers = {} if header is None else {"Retry-After": header}
    assert retry_after_s(httpx.Response(503, headers=headers)) == seconds


def test_a_refusal_is_described_with_its_place_and_anything_else_with_its_beginning() -> None:
    refusal = httpx.Response(422, json={"error": "unknown grader", "path": "$.items[0]"})
    assert describe(refusal) == "HTTP 422: unknown grader (at $.items[0])"
    assert describe(httpx.Response(502, text="<html>" + "x" * 999)) == "HTTP 502: <html>" + "x" * 194


def test_an_item_that_json_cannot_hold_is_an_error_and_the_others_are_sent() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        result = {"id": "b", "verdict": "correct", "reward": 1.0, "detail": "", "elapsed_s": 0.0}
        assert b'"id":"b"' in request.content
        return httpx.Response(200, json={"results": [result]})

    async def main() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            client = ScoringClient(http, "http://scorer", VerifierConfig(), asyncio.Event())
            scores = await client.score([ScoreItem("a", "exact", "\ud800", ""), ScoreItem("b", "exact", "", "")])
        return [score.verdict for score in scores]

    assert asyncio.run(main()) == ["error", "correct"]
