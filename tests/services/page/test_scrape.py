"""Figures of /metrics, from a real server."""

import socket
from typing import Any

import pytest

from services.health import HealthServer
from services.metrics import waiting
from services.page.scrape import Named, Scraper, figures_of

TEXT = b"""# HELP ratchet_wait_seconds_total x
ratchet_wait_seconds_total{room="learner",awaiting="scored groups"} 2.5
ratchet_verifier_scores_total{verdict="correct"} 3
ratchet_verifier_scores_total{verdict="incorrect"} 4
ratchet_verifier_scores_total_of_another 9
other{a="ratchet_waiting 7"} 1
"""


def test_figures_are_summed_over_labels_that_the_page_does_not_show() -> None:
    assert figures_of(TEXT) == {"ratchet_wait_seconds_total/scored groups": 2.5, "ratchet_verifier_scores_total": 7.0}


def test_a_service_is_asked_and_one_that_is_gone_is_named() -> None:
    server, scraper = HealthServer("127.0.0.1", 0, ready=lambda: True), Scraper()
    with waiting("learner", "scored groups"):
        scraper.look({"learner": server.url, "verifier": "http://127.0.0.1:9"})
    server.close()
    assert scraper.services["learner"].figures["ratchet_waiting/scored groups"] == 1
    assert not scraper.services["learner"].fault
    assert "refused" in scraper.services["verifier"].fault
    scraper.look({})
    assert not scraper.services


def test_rates_are_over_the_last_seconds_and_begin_again_with_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    server, scraper, clock = HealthServer("127.0.0.1", 0, ready=lambda: True), Scraper(), [100.0]
    answers = iter([10.0, 30.0, 50.0, 5.0])
    monkeypatch.setattr("services.page.scrape.now_s", lambda: clock[0])
    monkeypatch.setattr("services.page.scrape.figures_of", lambda _: {"ratchet_verifier_scores_total": next(answers)})
    rates = []
    for _ in range(4):
        scraper.look({"verifier": server.url})
        rates.append(scraper.services["verifier"].rates.get("ratchet_verifier_scores_total"))
        clock[0] += 10.0
    server.close()
    assert rates[:3] == [None, 2.0, 2.0]
    assert len(scraper.services["verifier"].history) == 1  # it was started again


def test_a_service_says_its_own_name() -> None:
    server, scraper = HealthServer("127.0.0.1", 0, ready=lambda: True, service="replica-7"), Scraper()
    scraper.look({"rollout-10.0.0.3": server.url})
    server.close()
    assert scraper.services["rollout-10.0.0.3"].own_name == "replica-7"


def test_a_name_with_several_addresses_is_several_services(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = {"rollout": ["10.0.0.9", "10.0.0.3", "10.0.0.3"], "learner": ["10.0.0.4"]}

    def looked_up(host: str, port: int, *_: Any) -> list[tuple[Any, ...]]:
        if host not in hosts:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts[host]]

    monkeypatch.setattr("services.page.scrape.socket.getaddrinfo", looked_up)
    named = {"rollout": "http://rollout:9101", "learner": "http://learner:9102", "verifier": "http://gone:9100"}
    assert Named(named).addresses() == {
        "rollout-10.0.0.3": "http://10.0.0.3:9101",
        "rollout-10.0.0.9": "http://10.0.0.9:9101",
        "learner": "http://learner:9102",
        "verifier": "http://gone:9100",
    }
