"""A real Prometheus beside a run, with the rules that are shipped, and every query of every dashboard asked of it."""

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from tests.deploy.monitoring import RULES, queries

MAY_BE_EMPTY = {
    "ratchet_gpu_memory_": "no GPU here",
    "ratchet_verifier_endpoint_": "no endpoint in this run",
    "ratchet_rollout_turns_": "no environment in this run",
    "ratchet_rollout_conversation_": "no environment in this run",
    "ratchet_rollout_environment_": "no environment in this run",
    "ratchet_rollout_tool_": "no environment in this run",
    "ratchet_learner_source_": "one source in this run",
}
"""Beginning of a metric's name -> why a query of it may find nothing."""


@dataclass(frozen=True)
class Answer:
    """What Prometheus said to one query of a panel."""

    dashboard: str
    panel: str
    query: str
    series: int
    last: str
    """The last value of one series."""
    fault: str
    """Why the query was refused; empty: it was not."""

    @property
    def excuse(self) -> str:
        return next((why for name, why in MAY_BE_EMPTY.items() if name in self.query), "")

    @property
    def is_wrong(self) -> bool:
        return bool(self.fault) or (self.series == 0 and not self.excuse)


def is_installed() -> bool:
    return shutil.which("prometheus") is not None


class Watching:
    """Scrapes the services of a run every second, wherever they are started, under the jobs that Compose gives them."""

    def __init__(self, scratch: Path, services: Path) -> None:
        """scratch: for the server's files. services: the folder in which services say where they are."""
        self._scratch = scratch
        self._services = services
        self._targets = scratch / "targets.json"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        self._closing = threading.Event()
        self._pointing = threading.Thread(target=self._point, daemon=True)
        self._begun_s = time.time()

    def __enter__(self) -> Self:
        files = [{"files": [str(self._targets)], "refresh_interval": "1s"}]
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES / "*.yml")],
            "scrape_configs": [{"job_name": "services", "file_sd_configs": files}],
        }
        self._scratch.mkdir(parents=True, exist_ok=True)
        config = self._scratch / "prometheus.yml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self._scratch / 'data'}",
            f"--web.listen-address={self._address}",
        ]
        with (self._scratch / "prometheus.log").open("w") as log:
            self._server = subprocess.Popen(command, stdout=log, stderr=log)
        self._pointing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._pointing.join()
        self._server.terminate()
        self._server.wait(timeout=30)

    def answers(self) -> list[Answer]:
        """Those to every query of every panel, over the time since this began."""
        return [self._answer(*each) for each in queries()]

    def firing(self) -> list[str]:
        """The alerts that fire now."""
        return [one["labels"]["alertname"] for one in self._ask("alerts")["alerts"] if one["state"] == "firing"]

    def scrapes_ms(self) -> dict[str, tuple[float, float]]:
        """Job -> the median and the nineteenth of twenty of the milliseconds that its /metrics took, over the whole run."""
        found: dict[str, list[float]] = {}
        for quantile in ("0.5", "0.95"):
            query = f'quantile_over_time({quantile}, scrape_duration_seconds{{job!=""}}[30m])'
            for series in self._ask("query", query=query)["result"]:
                found.setdefault(series["metric"]["job"], []).append(1000 * float(series["value"][1]))
        return {job: (low, high) for job, (low, high) in sorted(found.items())}

    def _answer(self, dashboard: str, panel: str, query: str) -> Answer:
        filled = query.replace("$__rate_interval", "1m")
        for variable in ("$run", "$instance", "$job"):
            filled = filled.replace(variable, ".*")
        try:
            time_range = {"start": str(self._begun_s), "end": str(time.time()), "step": "2"}
            found = self._ask("query_range", query=filled, **time_range)["result"]
        except ValueError as refusal:
            return Answer(dashboard, panel, query, 0, "", str(refusal))
        values = [[value for _, value in series["values"] if value != "NaN"] for series in found]
        known = [of_series for of_series in values if of_series]
        return Answer(dashboard, panel, query, len(known), known[-1][-1] if known else "", "")

    def _ask(self, path: str, **parameters: str) -> Any:
        """The data of the server's answer. Raises ValueError with its words if it refuses."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refusal:
            with refusal:
                raise ValueError(refusal.read().decode()) from None

    def _point(self) -> None:
        """Tell the server again and again where the services are."""
        while not self._closing.wait(0.5):
            found = []
            for path in sorted(self._services.glob("*.json")):
                room = path.stem.split("-")[0]
                if room not in ("learner", "rollout", "verifier"):
                    continue
                try:
                    address = json.loads(path.read_text(encoding="utf-8"))["url"].removeprefix("http://")
                except (OSError, ValueError):  # it is being written, or has just ended
                    continue
                found.append({"targets": [address], "labels": {"job": room}})
            draft = self._targets.with_suffix(".draft")
            draft.write_text(json.dumps(found), encoding="utf-8")
            draft.rename(self._targets)
