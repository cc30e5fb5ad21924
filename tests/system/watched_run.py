"""Runs the bundled example under a real Prometheus and evaluates every query of every dashboard; a program, not a test.

    python -m tests.system.watched_run [--steps 40] [--page docs/dashboards.md]

It takes about two minutes on two cores, which is why the suite does not run it. Needs `prometheus` (a Debian package). The
scrape targets are those of the run, at the intervals of a test; rules and dashboards are the ones that are shipped. Exit
code 1 if a query is refused or finds nothing, except those that need a GPU or an endpoint (MAY_BE_EMPTY), and if an alert
fires that should not.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from tests.deploy.monitoring import ROOT, RULES, queries

RATCHET = str(Path(sys.executable).parent / "ratchet")
EXAMPLE = ROOT / "examples/addition"
MAY_BE_EMPTY = {"ratchet_gpu_memory_": "no GPU here", "ratchet_verifier_endpoint_": "no endpoint in this run"}
"""Beginning of a metric's name -> why a query of it may find nothing."""
PORT = 19090
BEGIN = "<!-- watched: made by `python -m tests.system.watched_run --page docs/dashboards.md` -->"
END = "<!-- watched: end -->"


@dataclass(frozen=True)
class Answer:
    """What Prometheus said to one query of a panel."""

    dashboard: str
    panel: str
    query: str
    series: int
    last: str
    fault: str

    @property
    def excuse(self) -> str:
        return next((why for name, why in MAY_BE_EMPTY.items() if name in self.query), "")

    @property
    def is_wrong(self) -> bool:
        return bool(self.fault) or (self.series == 0 and not self.excuse)


def ask(path: str, **parameters: str) -> Any:
    """The data of Prometheus' answer. Raises ValueError with its words if it refuses."""
    url = f"http://127.0.0.1:{PORT}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as refusal:
        raise ValueError(refusal.read().decode()) from None


@contextmanager
def prometheus(folder: Path) -> Iterator[Path]:
    """A server with the shipped rules; yields the file that its targets are read from."""
    targets = folder / "targets.json"
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES / "*.yml")],
        "scrape_configs": [
            {
                "job_name": "services",
                "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
            }
        ],
    }
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{PORT}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield targets
    finally:
        server.terminate()
        server.wait(timeout=30)


def point_at(services: Path, targets: Path) -> None:
    """Have every service of the run scraped, under the job that Compose gives it."""
    found = []
    for path in sorted(services.glob("*.json")):
        address = json.loads(path.read_text(encoding="utf-8"))["url"].removeprefix("http://")
        room = path.stem.split("-")[0]
        if room in ("learner", "rollout", "verifier"):
            found.append({"targets": [address], "labels": {"job": room}})
    draft = targets.with_suffix(".draft")
    draft.write_text(json.dumps(found), encoding="utf-8")
    draft.rename(targets)


def evaluate(begun_s: float) -> list[Answer]:
    """Every query of every panel, over the time since begun_s (seconds since 1970)."""
    answers = []
    for dashboard, panel, query in queries():
        filled = (
            query.replace("$__rate_interval", "1m")
            .replace("$run", ".*")
            .replace("$instance", ".*")
            .replace("$job", ".*")
        )
        try:
            found = ask("query_range", query=filled, start=str(begun_s), end=str(time.time()), step="2")["result"]
        except ValueError as refusal:
            answers.append(Answer(dashboard, panel, query, 0, "", str(refusal)))
            continue
        values = [value for series in found for _, value in series["values"] if value != "NaN"]
        series = sum(any(value != "NaN" for _, value in one["values"]) for one in found)
        answers.append(Answer(dashboard, panel, query, series, values[-1] if values else "", ""))
    return answers


def table(answers: list[Answer]) -> str:
    """Markdown: a row for each panel."""
    lines = ["| dashboard | panel | queries | series | last values |", "| --- | --- | ---: | ---: | --- |"]
    for (dashboard, panel), found in itertools.groupby(answers, key=lambda answer: (answer.dashboard, answer.panel)):
        of_panel = list(found)
        said = [one.fault or short(one.last) or one.excuse or "NOTHING" for one in of_panel]
        title = dashboard.removeprefix("ratchet-")
        series = sum(one.series for one in of_panel)
        lines.append(f"| {title} | {panel} | {len(of_panel)} | {series} | {', '.join(dict.fromkeys(said))} |")
    return "\n".join(lines) + "\n"


def short(value: str) -> str:
    """A sample's value with four digits; empty for none."""
    return f"{float(value):.4g}" if value else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="learner steps before the queries are evaluated")
    parser.add_argument("--page", type=Path, help="the page to write the results into; default: they are printed")
    arguments = parser.parse_args()
    if shutil.which("prometheus") is None:
        print("skipped: prometheus is not installed (Debian: apt-get install prometheus)")
        return 0
    subprocess.run([sys.executable, str(EXAMPLE / "make_example.py")], check=True)
    scratch = Path(tempfile.mkdtemp(prefix="watched-"))
    folder = RunFolder(scratch / "runs/addition")
    overrides = [
        f"runs_folder={scratch / 'runs'}",
        "learner.steps=4000",
        "learner.checkpoint.every_steps=10",
        "price.gpu_hour=2.0",
    ]
    options = [part for override in overrides for part in ("--set", override)]
    environment = {name: value for name, value in os.environ.items() if name != "RATCHET_REDIS_URL"}
    with prometheus(scratch) as targets:
        begun_s = time.time()
        run = subprocess.Popen(
            [RATCHET, "up", str(EXAMPLE / "addition.toml"), *options],
            env=environment,
            cwd=ROOT,
            stdout=(scratch / "up.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        try:
            end_s = time.monotonic() + 600
            rows: list[dict[str, Any]] = []
            while (not rows or rows[-1]["step"] < arguments.steps) and time.monotonic() < end_s:
                if run.poll() is not None:
                    print(f"the run ended with {run.returncode}: {(scratch / 'up.log').read_text(encoding='utf-8')}")
                    return 1
                time.sleep(1.0)
                if folder.services.exists():
                    point_at(folder.services, targets)
                rows = read_json_lines(folder.steps) if folder.steps.exists() else []
            time.sleep(20.0)  # one evaluation of the recording rules after the last step that was asked for
            answers = evaluate(begun_s)
            firing = [one["labels"]["alertname"] for one in ask("alerts")["alerts"] if one["state"] == "firing"]
        finally:
            run.send_signal(signal.SIGINT)
            run.wait(timeout=120)
    wrong = [answer for answer in answers if answer.is_wrong]
    step = rows[-1]["step"] if rows else 0
    verdict = f"{len(answers)} queries after {step} steps: {len(wrong)} wrong; alerts that fire: {firing or 'none'}"
    results = f"{verdict}.\n\n{table(answers)}"
    if arguments.page:
        text = arguments.page.read_text(encoding="utf-8")
        before, _, after = text.partition(BEGIN)
        arguments.page.write_text(f"{before}{BEGIN}\n\n{results}\n{END}{after.partition(END)[2]}", encoding="utf-8")
        print(verdict)
    else:
        print(results)
    for answer in wrong:
        print(f"  {answer.dashboard} / {answer.panel}: {answer.query}: {answer.fault or 'nothing'}")
    return 1 if wrong or firing else 0


if __name__ == "__main__":
    sys.exit(main())
