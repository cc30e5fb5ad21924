import asyncio
import json
import logging
import time

import pytest
from prometheus_client import REGISTRY

from tests.fakes import openai_server as fake
from tests.fakes.openai_server import OpenAIServer, Step, late, says, status, unused_url
from tests.verifier.network.asking import ask, ended, sample, settings, with_endpoint, with_endpoints
from verifier.grader import ScoringFault
from verifier.network.endpoint import Endpoint, joined
from verifier.network.faults import BudgetSpent, EndpointAway, EndpointRefused

NEVER_OPENS = {"failures": 1000}


async def ask_for_fault(endpoint: Endpoint) -> ScoringFault:
    with pytest.raises(ScoringFault) as fault:
        await ask(endpoint)
    return fault.value


def fault_of(url: str, **given: object) -> ScoringFault:
    return with_endpoint(url, ask_for_fault, **given)


def test_the_path_goes_after_the_urls_own_and_before_its_query() -> None:
    assert joined("http://h/v1", "/x") == joined("http://h/v1/", "/x") == "http://h/v1/x"
    assert joined("http://h/v1?version=2", "/x") == "http://h/v1/x?version=2"
    assert joined("http://h/grade/", "") == "http://h/grade/"


def test_the_request_that_arrives_is_the_one_that_was_asked_for() -> None:
    with OpenAIServer() as server:
        configs = {"there": settings(server.url, api_key_env="THE_KEY", body={"effort": "low", "question": 2})}
        with_endpoints(configs, lambda endpoints: ask(endpoints["there"]), {"THE_KEY": "secret-1"})
    (request,) = server.requests
    assert request.path == "/v1/x"
    assert request.headers["Authorization"] == "Bearer secret-1"
    assert request.body == {"question": 2, "effort": "low"}, "the operator's body wins"


@pytest.mark.parametrize(
    "bad",
    [
        status(500),
        status(503),
        status(408),
        status(429),
        status(200, body=b"<html>"),
        status(200, body=b"[" * 100_000),
        fake.cuts,
        fake.hangs_up,
        fake.bomb,
    ],
    ids=["500", "503", "408", "429", "not JSON", "nested", "cut", "hung up", "zip bomb"],
)
def test_what_may_pass_is_asked_again(bad: Step) -> None:
    with OpenAIServer(bad, bad, says("fine")) as server:
        found = with_endpoint(server.url, ask, attempts=3)
    assert found["choices"][0]["message"]["content"] == "fine"
    assert len(server.requests) == 3
    gaps_s = [after.at_s - before.at_s for before, after in zip(server.requests, server.requests[1:], strict=False)]
    assert all(gap_s >= 0.12 for gap_s in gaps_s), "there was no pause between the tries"


def test_what_does_not_pass_ends_after_the_last_attempt_and_says_why_and_what_to_do() -> None:
    with OpenAIServer(status(502)) as server:
        fault = fault_of(server.url, attempts=2)
    assert isinstance(fault, EndpointAway)
    assert len(server.requests) == 2
    assert '"there" is away: 2 requests without a usable answer, the last one: HTTP 502' in str(fault)
    assert "verifier.endpoints.there" in str(fault)


def test_an_endpoint_that_is_not_there_is_away() -> None:
    fault = fault_of(unused_url())
    assert isinstance(fault, EndpointAway)
    assert "ConnectError" in str(fault)


@pytest.mark.parametrize(
    ("code", "says_what_to_do"),
    [(400, "options"), (401, "api_key_env"), (404, "url"), (422, "options"), (307, "redirects")],
)
def test_a_refusal_is_not_repeated_and_says_what_to_do(code: int, says_what_to_do: str) -> None:
    with OpenAIServer(status(code, {"Location": "http://127.0.0.1:9/elsewhere"})) as server:
        fault = fault_of(server.url, attempts=3)
    assert isinstance(fault, EndpointRefused)
    assert f"HTTP {code}" in str(fault)
    assert says_what_to_do in str(fault)
    assert len(server.requests) == 1


def test_a_refusal_repeats_little_of_what_the_server_says_and_nothing_where_that_may_be_the_token() -> None:
    with OpenAIServer(status(400, body={"error": {"message": "context is too long: " + "x" * 500}})) as server:
        assert "(context is too long: xxx" in str(fault := fault_of(server.url))
        assert "x" * 60 not in str(fault)
    with OpenAIServer(status(401, body={"error": {"message": "bad token secret-1"}})) as server:
        assert "secret-1" not in str(fault_of(server.url))


def test_an_answer_that_never_ends_is_late_as_a_whole() -> None:
    for never_ending in (fake.hangs, fake.drips):
        with OpenAIServer(never_ending) as server:
            start_s = time.monotonic()
            fault = fault_of(server.url, timeout_s=0.4)
            assert time.monotonic() - start_s < 5.0
        assert "no answer within timeout_s = 0.4" in str(fault)


def test_no_more_of_an_answer_is_read_than_it_may_hold() -> None:
    with OpenAIServer(fake.floods) as server:
        fault = fault_of(server.url, max_answer_bytes=10_000)
    assert "larger than max_answer_bytes = 10000" in str(fault)


def test_an_answer_that_is_compressed_is_not_unpacked() -> None:
    with OpenAIServer(fake.bomb) as server:
        assert "its answer is compressed" in str(fault_of(server.url))
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_no_call_reaches_the_endpoint_for_as_long_as_it_asks() -> None:
    with OpenAIServer(status(429, {"Retry-After": "1"}), says("fine")) as server:

        async def work(endpoint: Endpoint) -> None:
            first = asyncio.create_task(ask(endpoint))
            await asyncio.sleep(0.3)  # by then it was throttled
            await asyncio.gather(first, *(ask(endpoint) for _ in range(3)))

        with_endpoint(server.url, work, attempts=2)
    assert all(request.at_s - server.requests[0].at_s >= 0.99 for request in server.requests[1:])
    assert len(server.requests) == 5


def test_being_asked_to_wait_longer_than_the_call_may_last_ends_it_at_once() -> None:
    with OpenAIServer(status(429, {"Retry-After": "3600"})) as server:
        start_s = time.monotonic()
        fault = fault_of(server.url, attempts=3, deadline_s=5.0)
    assert time.monotonic() - start_s < 4.0
    assert isinstance(fault, EndpointAway)
    assert "deadline_s = 5" in str(fault)
    assert fault.retry_after_s > 5


def test_requests_at_once_are_bounded_and_connections_are_kept() -> None:
    with OpenAIServer(late(0.05, says("fine"))) as server:

        async def work(endpoint: Endpoint) -> None:
            await asyncio.gather(*(ask(endpoint) for _ in range(40)))

        with_endpoint(server.url, work, max_concurrent=4)
    assert len(server.requests) == 40
    assert server.most_in_flight == 4
    assert server.connections == 4


def test_a_call_whose_turn_does_not_come_ends_at_its_deadline() -> None:
    with OpenAIServer(fake.hangs) as server:

        async def work(endpoint: Endpoint) -> list[BaseException | None]:
            return list(await asyncio.gather(*(ask(endpoint) for _ in range(3)), return_exceptions=True))

        start_s = time.monotonic()
        faults = with_endpoint(server.url, work, max_concurrent=1, deadline_s=0.5)
        assert time.monotonic() - start_s < 4.0
    assert len(server.requests) == 1
    assert all(isinstance(fault, EndpointAway) for fault in faults)
    assert "its turn did not come" in str(faults[2])
    assert sample("waiting_calls") == 0


def test_the_time_spent_waiting_is_counted_by_what_was_awaited() -> None:
    def waited_s(awaiting: str) -> float:
        return (
            REGISTRY.get_sample_value("ratchet_wait_seconds_total", {"room": "verifier", "awaiting": awaiting}) or 0.0
        )

    before = {awaiting: waited_s(awaiting) for awaiting in ("endpoint turn", "endpoint answer")}
    with OpenAIServer(fake.hangs) as server:

        async def work(endpoint: Endpoint) -> None:
            await asyncio.gather(*(ask(endpoint) for _ in range(2)), return_exceptions=True)

        with_endpoint(server.url, work, max_concurrent=1, deadline_s=0.5)
    for awaiting, seconds in before.items():
        assert waited_s(awaiting) - seconds > 0.3, awaiting


def test_cancelled_calls_leave_nothing_taken() -> None:
    with OpenAIServer(*[fake.hangs] * 4, says("fine")) as server:

        async def work(endpoint: Endpoint) -> None:
            calls = [asyncio.create_task(ask(endpoint)) for _ in range(10)]  # 4 are sent, 6 wait
            while len(server.requests) < 4:
                await asyncio.sleep(0.01)
            for call in calls:
                call.cancel()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends)
            await asyncio.gather(*(ask(endpoint) for _ in range(8)))

        before = sample("calls_total", outcome="cancelled")
        with_endpoint(server.url, work, max_concurrent=4, breaker={"failures": 1})
        assert sample("calls_total", outcome="cancelled") - before == 4
    assert sample("waiting_calls") == 0


# The breaker, over real sockets.


def test_after_failures_in_a_row_nothing_is_sent_until_one_probe_is_answered() -> None:
    with OpenAIServer(*[status(500)] * 3, late(0.2, says("fine"))) as server:

        async def work(endpoint: Endpoint) -> None:
            for _ in range(3):
                assert isinstance(await ended(ask(endpoint)), EndpointAway)
            for _ in range(20):
                fault = await ended(ask(endpoint))
                assert isinstance(fault, EndpointAway)
                assert "none is sent for" in str(fault)
                assert 0 < fault.retry_after_s <= 0.5
            assert len(server.requests) == 3
            assert sample("breaker_state") == 2
            await asyncio.sleep(0.5)
            ends = await asyncio.gather(*(ask(endpoint) for _ in range(10)), return_exceptions=True)
            assert [isinstance(end, EndpointAway) for end in ends].count(True) == 9, "more than one request tried it"
            assert len(server.requests) == 4
            assert sample("breaker_state") == 0
            await asyncio.gather(*(ask(endpoint) for _ in range(10)))

        unsent = sample("unsent_total", cause="breaker")
        with_endpoint(server.url, work, max_concurrent=16, breaker={"failures": 3, "open_s": 0.5})
        assert sample("unsent_total", cause="breaker") - unsent == 29


def test_a_probe_whose_caller_goes_away_does_not_keep_the_others_out() -> None:
    with OpenAIServer(status(500), fake.hangs, says("fine")) as server:

        async def work(endpoint: Endpoint) -> None:
            await ended(ask(endpoint))
            await asyncio.sleep(0.1)
            probe = asyncio.create_task(ask(endpoint))
            while len(server.requests) < 2:
                await asyncio.sleep(0.01)
            assert "one request is trying it" in str(await ended(ask(endpoint)))
            probe.cancel()
            await ended(probe)
            await ask(endpoint)

        with_endpoint(server.url, work, breaker={"failures": 1, "open_s": 0.1})


def test_being_throttled_or_refused_does_not_open_the_breaker() -> None:
    for answer in (status(429), status(400)):
        with OpenAIServer(*[answer] * 5, says("fine")) as server:

            async def work(endpoint: Endpoint) -> None:
                for _ in range(5):
                    await ended(ask(endpoint))
                await ask(endpoint)

            with_endpoint(server.url, work, breaker={"failures": 2})
            assert len(server.requests) == 6


@pytest.mark.parametrize("code", [400, 429])
def test_a_probe_that_is_refused_or_throttled_shows_that_the_endpoint_is_back(code: int) -> None:
    with OpenAIServer(status(500), status(code), says("fine")) as server:

        async def work(endpoint: Endpoint) -> None:
            await ended(ask(endpoint))
            await asyncio.sleep(0.1)
            await ended(ask(endpoint))
            assert sample("breaker_state") == 0
            await ask(endpoint)

        with_endpoint(server.url, work, breaker={"failures": 1, "open_s": 0.1})


def test_a_request_cut_short_by_its_own_callers_deadline_is_not_held_against_the_endpoint() -> None:
    with OpenAIServer(fake.hangs, says("fine")) as server:

        async def work(endpoint: Endpoint) -> None:
            assert "left of deadline_s" in str(await ended(ask(endpoint)))
            await ask(endpoint)

        with_endpoint(server.url, work, deadline_s=0.3, breaker={"failures": 1})


def test_a_call_stops_trying_once_the_breaker_is_open_without_a_pause_for_nothing() -> None:
    unsent = sample("unsent_total", cause="breaker")
    with OpenAIServer(status(500)) as server:
        fault_of(server.url, attempts=10, breaker={"failures": 2})
    assert len(server.requests) == 2
    assert sample("unsent_total", cause="breaker") == unsent, "it paused, and then asked for a permit"


# The budget.


def test_no_request_is_sent_above_the_budget_of_calls_and_tries_count() -> None:
    with OpenAIServer(status(500), says("fine")) as server:

        async def work(endpoint: Endpoint) -> None:
            await ask(endpoint)  # two requests
            ends = await asyncio.gather(*(ask(endpoint) for _ in range(10)), return_exceptions=True)
            assert [isinstance(end, BudgetSpent) for end in ends].count(True) == 7
            fault = await ended(ask(endpoint))
            assert isinstance(fault, BudgetSpent)
            assert "verifier.endpoints.there.budget.max_calls = 5" in str(fault)

        with_endpoint(server.url, work, attempts=2, budget={"max_calls": 5})
    assert len(server.requests) == 5


def test_a_spent_budget_is_not_a_failure_of_the_endpoint() -> None:
    with OpenAIServer() as server:

        async def work(endpoint: Endpoint) -> None:
            for _ in range(3):
                assert isinstance(await ended(ask(endpoint)), BudgetSpent)

        with_endpoint(server.url, work, budget={"max_calls": 0}, breaker={"failures": 1})
    assert server.requests == []


# What is logged and counted.


def test_neither_tokens_nor_urls_nor_texts_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="ratchet")
    with OpenAIServer(
        status(500, body={"error": {"message": "the-answer"}}), status(500), says("the-answer")
    ) as server:

        async def work(endpoint: Endpoint) -> None:
            for _ in range(2):
                await ended(endpoint.post({"question": "the-question"}, json.loads))
            await asyncio.sleep(0.2)
            await endpoint.post({"question": "the-question"}, json.loads)

        configs = {
            "there": settings(server.url + "?sig=hidden", api_key_env="K", breaker={"failures": 2, "open_s": 0.1})
        }
        with_endpoints(configs, lambda endpoints: work(endpoints["there"]), {"K": "secret-1"})
    assert "is away: HTTP 500" in caplog.text
    assert '"there" is back' in caplog.text
    for hidden in ("secret-1", "hidden", "the-answer", "the-question", server.url):
        assert hidden not in "".join(
            record.getMessage() for record in caplog.records if record.name.startswith("ratchet")
        )


def test_each_request_is_counted_by_what_became_of_it() -> None:
    outcomes = ("answered", "throttled", "refused", "failed", "late")
    before = {outcome: sample("calls_total", outcome=outcome) for outcome in outcomes}
    script = [says("fine"), status(429), status(400), status(500), fake.hangs]
    with OpenAIServer(*script) as server:

        async def work(endpoint: Endpoint) -> None:
            for _ in script:
                await ended(ask(endpoint))

        with_endpoint(server.url, work, timeout_s=0.3, breaker=NEVER_OPENS)
    assert {outcome: sample("calls_total", outcome=outcome) - before[outcome] for outcome in outcomes} == dict.fromkeys(
        outcomes, 1
    )


def test_what_cannot_be_put_into_a_request_is_a_fault() -> None:
    async def work(endpoint: Endpoint) -> None:
        for unsendable in ("\ud800", object()):
            with pytest.raises(ScoringFault, match="cannot be put into a request"):
                await endpoint.post({"question": unsendable}, lambda content: None)

    with_endpoint(unused_url(), work)


def test_an_endpoint_that_judges_with_something_else_has_another_identity() -> None:
    given = [
        settings("http://a/v1"),
        settings("http://b/v1"),
        settings("http://a/v1", model="n"),
        settings("http://a/v1", body={"seed": 1}),
    ]
    same = settings("http://a/v1", max_concurrent=3, timeout_s=1.0)

    async def identities(endpoints: object) -> list[str]:
        return [endpoints[str(n)].identity for n in range(5)]  # type: ignore[index]

    found = with_endpoints({str(n): config for n, config in enumerate([*given, same])}, identities)
    assert len(set(found)) == 4
    assert found[4] == found[0]
