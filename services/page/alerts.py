"""The alerts of a Prometheus, where the page is told of one."""

from typing import Any

import httpx

from services.clock import now_s

EVERY_S = 10.0
ANSWER_S = 2.0
SHOWN = 50


class Alerts:
    """Asks every ten seconds; in between it says what it knows."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self._asked_s = -EVERY_S
        self._known: dict[str, Any] = {"firing": [], "fault": ""}

    def look(self) -> dict[str, Any]:
        """The alerts that are pending or firing, or why they are not known.

        Waits for: the Prometheus.
        Until: ANSWER_S.
        Ended by: its answer, or the deadline, which the page shows.
        Metric: none; the page has none.
        """
        if now_s() - self._asked_s >= EVERY_S:
            self._asked_s = now_s()
            try:
                answer = httpx.get(f"{self._address}/api/v1/alerts", timeout=ANSWER_S, trust_env=False)
                answer.raise_for_status()
                self._known = {"firing": [_row(one) for one in answer.json()["data"]["alerts"]][:SHOWN], "fault": ""}
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as fault:
                self._known = {
                    "firing": [],
                    "fault": f"{self._address} gives no alerts: {fault or type(fault).__name__}",
                }
        return self._known


def _row(alert: dict[str, Any]) -> dict[str, str]:
    notes = alert.get("annotations", {})
    return {
        "name": str(alert["labels"]["alertname"]),
        "state": str(alert["state"]),
        "said": str(notes.get("description") or notes.get("summary") or ""),
    }
