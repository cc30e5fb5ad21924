import json
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tests.fakes.openai_server import OpenAIServer, Step, hangs, status, unused_url
from tests.verifier.network.asking import settings, with_endpoints
from tests.verifier.running import running
from verifier.contract import ScoreRequest
from verifier.grader import Judgment, ScoringFault, build_grader
from verifier.graders.remote import Remote
from verifier.network.endpoints import Endpoints
from verifier.network.faults import EndpointAway, EndpointRefused

NO_SETTINGS: Mapping[str, Any] = {}


def answers(page: Any) -> Step:
    return status(200, body=page if isinstance(page, bytes) else json.dumps(page).encode())


def judged(
    url: str, response: str = "12", reference: Any = "12", *, config: Mapping[str, Any] = NO_SETTINGS, **options: Any
) -> Judgment:
    remote = build_grader(Remote, {"endpoint": "there"} | options)

    async def work(endpoints: Endpoints) -> Judgment:
        judgment: Judgment = await remote.score(response, reference, endpoints)
        return judgment

    return with_endpoints({"there": settings(url, **config)}, work)


def judged_by(page: Any, **options: Any) -> Judgment:
    with OpenAIServer(answers(page)) as server:
        return judged(server.url, **options)


# Protocol json.


def test_the_response_the_reference_and_the_options_go_to_the_endpoints_url() -> None:
    with OpenAIServer(answers({"reward": 1})) as server:
        judged(server.url + "/grade", "é\n", {"a": [1]}, options={"strict": True})
    assert server.requests[0].path == "/v1/grade"
    assert server.requests[0].body == {"response": "é\n", "reference": {"a": [1]}, "options": {"strict": True}}


def test_the_fields_can_have_other_names_and_places() -> None:
    page = {"result": [{"score/main": 0.25, "ok~": True, "why": "close"}]}
    with OpenAIServer(answers(page)) as server:
        judgment = judged(
            server.url,
            response_at="/input/solution_str",
            reference_at="/input/ground_truth",
            options_at="/extra",
            reward_at="/result/0/score~1main",
            correct_at="/result/0/ok~0",
            detail_at="/result/0/why",
        )
    assert server.requests[0].body == {"input": {"solution_str": "12", "ground_truth": "12"}, "extra": {}}
    assert judgment == Judgment(True, "close", 0.25)


@pytest.mark.parametrize(
    ("page", "options", "expected"),
    [
        ({"reward": 1}, {}, Judgment(True, "", 1.0)),
        ({"reward": 0.0, "detail": "no"}, {}, Judgment(False, "no", 0.0)),
        ({"reward": 0.5}, {}, Judgment(True, "", 0.5)),
        ({"reward": 0.5}, {"threshold": 0.6}, Judgment(False, "", 0.5)),
        ({"reward": 0.9, "correct": False}, {}, Judgment(False, "", 0.9)),
        ({"reward": 0.9, "correct": None, "detail": 3}, {}, Judgment(True, "", 0.9)),
        ({"reward": -1}, {"lowest": -1.0}, Judgment(False, "", -1.0)),
        ({"reward": 7, "detail": "x" * 500}, {"highest": 10.0}, Judgment(True, "x" * 60, 7.0)),
    ],
)
def test_the_answer_becomes_a_judgment(page: Any, options: dict[str, Any], expected: Judgment) -> None:
    assert judged_by(page, **options) == expected


@pytest.mark.parametrize(
    ("page", "says_what"),
    [
        ({}, "no reward at /reward"),
        ([], "no reward at /reward"),
        ("1", "no reward at /reward"),
        ({"reward": None}, "is not a number but NoneType"),
        ({"reward": "1"}, "is not a number but str"),
        ({"reward": True}, "is not a number but bool"),
        ({"reward": [1]}, "is not a number but list"),
        (b'{"reward": NaN}', "is not from 0 to 1"),
        (b'{"reward": Infinity}', "is not from 0 to 1"),
        (b'{"reward": 1e999}', "is not from 0 to 1"),
        (b'{"reward": 1' + b"0" * 400 + b"}", "is not from 0 to 1"),
        ({"reward": 1.01}, "is not from 0 to 1"),
        ({"reward": -0.1}, "is not from 0 to 1"),
        ({"reward": 1, "correct": "yes"}, "has str at /correct, not a bool"),
        (b"<html>", "does not follow the protocol"),
        (b'{"reward": 1' + b"0" * 10_000 + b"}", "does not follow the protocol"),
        (b"[" * 100_000, "does not follow the protocol"),
        (b"", "does not follow the protocol"),
    ],
)
def test_a_reward_that_is_none_is_a_fault_and_never_a_zero(page: Any, says_what: str) -> None:
    with pytest.raises(ScoringFault, match=says_what):
        judged_by(page)


def test_one_bad_reward_is_not_held_against_the_endpoint() -> None:
    async def work(endpoints: Endpoints) -> None:
        for _ in range(5):
            with pytest.raises(ScoringFault, match="no reward"):
                await Remote(endpoint="there").score("12", "12", endpoints)
        assert (await Remote(endpoint="there").score("12", "12", endpoints)).correct

    with OpenAIServer(*[answers({})] * 5, answers({"reward": 1})) as server:
        with_endpoints({"there": settings(server.url, breaker={"failures": 2})}, work)


@pytest.mark.parametrize(
    ("bad", "fault"), [(status(500), EndpointAway), (hangs, EndpointAway), (status(422), EndpointRefused)]
)
def test_a_broken_service_never_makes_a_response_incorrect(bad: Step, fault: type[ScoringFault]) -> None:
    with OpenAIServer(bad) as server, pytest.raises(fault):
        judged(server.url, config={"timeout_s": 0.3})


def test_a_response_that_utf8_cannot_hold_is_judged_all_the_same() -> None:
    with OpenAIServer(answers({"reward": 0})) as server:
        assert not judged(server.url, "a\ud800b").correct
    assert server.requests[0].body["response"] == "a?b"


# Protocol ratchet.


def verdict(verdict: str, reward: float | None, detail: str = "") -> Step:
    return answers({"results": [{"id": "0", "verdict": verdict, "reward": reward, "detail": detail, "elapsed_s": 0.1}]})


def test_another_verifier_is_asked_by_its_own_contract() -> None:
    with OpenAIServer(verdict("correct", 1.0, "good")) as server:
        judgment = judged(server.url.removesuffix("/v1"), protocol="ratchet", grader="exact", options={"strip": False})
    assert judgment == Judgment(True, "good", 1.0)
    assert server.requests[0].path == "/v1/score"
    (item,) = msgspec.convert(server.requests[0].body, ScoreRequest).items
    assert (item.grader, item.response, item.reference, item.options) == ("exact", "12", "12", {"strip": False})


def test_a_real_verifier_answers() -> None:
    with running(processes=1) as verifier:
        asked: dict[str, Any] = {"protocol": "ratchet", "grader": "odd"}
        assert judged(verifier.url, "right", "right", **asked).correct
        assert not judged(verifier.url, "wrong", "right", **asked).correct
        with pytest.raises(ScoringFault, match="verdict is error: the reference is wrong"):
            judged(verifier.url, "fault", "right", **asked)
        with pytest.raises(EndpointRefused, match="unknown grader"):
            judged(verifier.url, "right", "right", protocol="ratchet", grader="none-such")


@pytest.mark.parametrize("given_verdict", ["error", "timeout"])
def test_its_errors_and_timeouts_are_faults_here_too(given_verdict: str) -> None:
    says_what = f"verdict is {given_verdict}: w{{60}}$"
    with OpenAIServer(verdict(given_verdict, None, "w" * 500)) as server, pytest.raises(ScoringFault, match=says_what):
        judged(server.url, protocol="ratchet", grader="exact")


@pytest.mark.parametrize(
    "bad",
    [
        verdict("error", 0.0),
        verdict("correct", None),
        verdict("fine", 1.0),
        verdict("correct", 2.0),
        answers({"results": []}),
        answers({"results": [{"id": "1", "verdict": "correct", "reward": 1.0, "detail": "", "elapsed_s": 0.1}]}),
        answers(b'{"results": [{"id": "0", "verdict": "correct", "reward": NaN, "detail": "", "elapsed_s": 0.1}]}'),
    ],
    ids=["error with reward", "no reward", "unknown verdict", "reward of 2", "no result", "another id", "nan"],
)
def test_what_breaks_the_contract_is_a_fault(bad: Step) -> None:
    with OpenAIServer(bad) as server, pytest.raises(ScoringFault):
        judged(server.url, protocol="ratchet", grader="exact")


# Options and references.


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"url": "http://evil"}, "unknown options url"),
        ({"protocol": "ratchet"}, "option grader"),
        ({"grader": "exact"}, "option grader"),
        ({"lowest": 1.0}, "span no range"),
        ({"lowest": math.nan}, "span no range"),
        ({"highest": math.inf}, "span no range"),
        ({"threshold": 2.0}, "threshold = 2.0"),
        ({"reward_at": "reward"}, "begins with a slash"),
        ({"response_at": ""}, "already taken"),
        ({"response_at": "/reference"}, "already taken"),
        ({"response_at": "/a", "options_at": "/a/b"}, "goes through a value"),
        ({"reference_at": "/a", "options_at": "/a/b"}, "goes through a value"),
    ],
)
def test_unusable_options_are_faults_that_name_them(options: dict[str, Any], names: str) -> None:
    with pytest.raises(ScoringFault, match=names):
        build_grader(Remote, options)


def test_a_reference_that_json_cannot_hold_is_a_fault() -> None:
    usable: tuple[Any, ...] = (None, 1, "a", [1], {"a": {}})
    for reference in usable:
        Remote().check(reference)
    unusable: tuple[Any, ...] = (object(), "\ud800", {1j: 1})
    for reference in unusable:
        with pytest.raises(ScoringFault, match="the reference cannot be put into a request"):
            Remote().check(reference)
    with pytest.raises(ScoringFault, match="cannot be put into a request"):
        judged(unused_url(), "12", object())


def test_it_waits_for_another_service_and_so_runs_in_the_network_lane() -> None:
    assert Remote.lane == "network"
