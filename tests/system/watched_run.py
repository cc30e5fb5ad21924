"""Runs the bundled example under a real Prometheus, and writes what every query of every dashboard found into their page.

    python -m tests.system.watched_run [--steps 40] [--page docs/dashboards.md]

It takes about two minutes on two cores. Needs `prometheus` (a Debian package). Exit code 1 if a query is refused or finds
nothing, except those that need a GPU, an endpoint, an environment or several sources, and if an alert fires.
tests/system/test_run.py asks the same queries of its run, which is killed and started again.
"""

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from services.run.folder import RunFolder
from services.run.json_lines import read_json_lines
from tests.deploy.monitoring import ROOT
from tests.system.generated import write_part
from tests.system.watching import Answer, Watching, is_installed

RATCHET = str(Path(sys.executable).parent / "ratchet")
EXAMPLE = ROOT / "examples/addition"
BEGIN = "<!-- watched: made by `python -m tests.system.watched_run --page docs/dashboards.md` -->"
END = "<!-- watched: end -->"


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
    if not is_installed():
        print("skipped: prometheus is not installed (Debian: apt-get install prometheus)")
        return 0
    subprocess.run([sys.executable, str(EXAMPLE / "make_example.py")], check=True)
    with tempfile.TemporaryDirectory(prefix="watched-") as scratch:
        answers, scrapes, firing, step = watched(Path(scratch), arguments.steps)
    wrong = [answer for answer in answers if answer.is_wrong]
    verdict = f"{len(answers)} queries after {step} steps: {len(wrong)} wrong; alerts that fire: {firing or 'none'}"
    took = ", ".join(f"{job} {low:.1f} ms ({high:.1f})" for job, (low, high) in scrapes.items())
    results = f"{verdict}. Time of a scrape, median and 95 %: {took}.\n\n{table(answers)}"
    if arguments.page:
        write_part(arguments.page, BEGIN, END, results)
        print(verdict)
    else:
        print(results)
    for answer in wrong:
        print(f"  {answer.dashboard} / {answer.panel}: {answer.query}: {answer.fault or 'nothing'}")
    return 1 if wrong or firing else 0


def watched(scratch: Path, steps: int) -> tuple[list[Answer], dict[str, tuple[float, float]], list[str], int]:
    """Returns what the queries found once `steps` steps were taken, how long scrapes took, the alerts that fire, and the last
    step by then."""
    folder = RunFolder(scratch / "runs/addition")
    overrides = [
        f"runs_folder={scratch / 'runs'}",
        "learner.steps=4000",
        "learner.checkpoint.every_steps=10",
        "price.gpu_hour=2.0",
    ]
    options = [part for override in overrides for part in ("--set", override)]
    environment = {name: value for name, value in os.environ.items() if name != "RATCHET_REDIS_URL"}
    command = [RATCHET, "up", str(EXAMPLE / "addition.toml"), *options]
    with Watching(scratch / "prometheus", folder.services) as watching, (scratch / "up.log").open("w") as log:
        run = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            end_s = time.monotonic() + 600
            rows: list[dict[str, Any]] = []
            while (not rows or rows[-1]["step"] < steps) and time.monotonic() < end_s:
                if run.poll() is not None:
                    raise SystemExit(f"the run ended with {run.returncode}:\n{(scratch / 'up.log').read_text('utf-8')}")
                time.sleep(1.0)
                rows = read_json_lines(folder.steps) if folder.steps.exists() else []
            time.sleep(20.0)  # the recording rules are evaluated every 15 s
            return watching.answers(), watching.scrapes_ms(), watching.firing(), rows[-1]["step"] if rows else 0
        finally:
            run.send_signal(signal.SIGINT)
            run.wait(timeout=120)


if __name__ == "__main__":
    sys.exit(main())
