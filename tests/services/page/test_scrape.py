"""Figures of /metrics, from a real server."""

from services.health import HealthServer
from services.metrics import waiting
from services.page.scrape import Scraper, figures_of

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
