import logging

import pytest
from pydantic import TypeAdapter, ValidationError

from services.config.endpoints import EndpointConfig, EndpointsConfig
from services.errors import InputError
from tests.fakes.openai_server import OpenAIServer, unused_url
from tests.verifier.network.asking import ask, with_endpoint
from verifier.grader import ScoringFault
from verifier.network.endpoints import Endpoints


def test_a_token_that_is_not_in_the_environment_is_an_error_at_start_that_names_it() -> None:
    settings = {"judge": EndpointConfig(url="https://h/v1", api_key_env="JUDGE_KEY")}
    for environ in ({}, {"JUDGE_KEY": " "}):
        with pytest.raises(InputError, match=r'verifier\.endpoints\.judge\.api_key_env = "JUDGE_KEY"'):
            Endpoints(settings, environ)


def test_a_token_that_no_header_can_carry_is_an_error_that_does_not_repeat_it() -> None:
    settings = {"judge": EndpointConfig(url="https://h/v1", api_key_env="JUDGE_KEY")}
    for token in ("two words", "line\nbreak", "schlüssel"):
        with pytest.raises(InputError) as fault:
            Endpoints(settings, {"JUDGE_KEY": token})
        assert token not in str(fault.value)


def test_a_token_that_would_travel_unencrypted_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="ratchet.verifier")
    for url, warned in (("http://127.0.0.1/v1", False), ("https://judge/v1", False), ("http://judge/v1", True)):
        caplog.clear()
        Endpoints({"judge": EndpointConfig(url=url, api_key_env="K")}, {"K": "secret-1"})
        assert ("unencrypted" in caplog.text) is warned
        assert "secret-1" not in caplog.text


def test_an_unknown_endpoint_is_a_fault_that_lists_the_known_ones() -> None:
    endpoints = Endpoints({"b": EndpointConfig(url="http://h"), "a": EndpointConfig(url="http://h")}, {})
    with pytest.raises(ScoringFault, match=r'no endpoint "http://evil".*known: a, b'):
        endpoints["http://evil"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h/v1",
        "ftp://h/v1",
        "http://",
        "http:///v1",
        "http://h:99999/",
        "http://u:pw@h/v1",
        "http://h/ v1",
        "http://h/#x",
    ],
)
def test_a_malformed_url_and_one_with_a_password_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        EndpointConfig(url=url)


@pytest.mark.parametrize("url", ["http://h", "https://h:8443/v1/", "http://[::1]:8000/v1", "https://h/grade?version=2"])
def test_a_usual_url_is_taken(url: str) -> None:
    assert EndpointConfig(url=url).url == url


@pytest.mark.parametrize("url", ["http://a..b/v1", "http://xn--/v1", "http://h/\x01", f"http://{'a' * 64}/v1"])
def test_a_url_that_could_never_be_asked_is_an_error_at_start_that_names_its_endpoint(url: str) -> None:
    with pytest.raises(InputError, match=r"verifier\.endpoints\.judge\.url"):
        Endpoints({"judge": EndpointConfig(url=url)}, {})


def test_names_are_short_and_plain_because_they_are_labels() -> None:
    read = TypeAdapter(EndpointsConfig).validate_python
    assert set(read({"judge-7b_a": {"url": "http://h"}})) == {"judge-7b_a"}
    for name in ("", "a b", "a.b", "x" * 41):
        with pytest.raises(ValidationError):
            read({name: {"url": "http://h"}})


def test_an_endpoint_on_this_machine_is_not_asked_for_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", unused_url())
    monkeypatch.setenv("ALL_PROXY", unused_url())
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with OpenAIServer() as server:
        with_endpoint(server.url, ask)
    assert len(server.requests) == 1
