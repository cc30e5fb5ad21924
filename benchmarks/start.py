"""How long `ratchet up` takes to its first sampled token and to its first learner step, and where the time goes.

`python -m benchmarks.start [--rounds N] [--set SECTION.KEY=VALUE]` starts the addition example (see Makefile: `make example`
first), reads when each thing happened from the logs and from the run's files, stops it after the first step, prints a table
and writes .bench/start.json. Beside it: the engine alone, the way the replica starts it, which is the part that Ratchet does not
decide. About a minute a round on 2 cores; leave the machine alone meanwhile.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import machine
from services.run.json_text import json_text

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "addition" / "addition.toml"
LONGEST_S = 240.0
MILESTONES = {
    "services start": ("up", r"^starting rollout-0"),
    "learner loaded": ("learner", r"^weights: .* of buckets"),
    "engine started": ("rollout", r"^the engine has started"),
    "group forms": ("learner", r"^generation 1 of the weight group"),
    "weights proven": ("rollout", r"^the weights are proven"),
    "first group": ("rollout", r"^the first group is sampled"),
}
"""What is read from the logs: which service says it, and in which words. `up`: the line before each start of a service."""
ENGINE_ALONE = """
import sys, time
from pathlib import Path
began_s = time.monotonic()
from rollout.vllm.launch import launch, set_environment
from services.config.load import load
run = load(Path(sys.argv[1]), sys.argv[2:])
set_environment(run)
launch(run)
print(f"engine alone {time.monotonic() - began_s}", flush=True)
import os
os._exit(0)
"""


def at_unix_s(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def said(log: Path) -> list[dict[str, Any]]:
    """The JSON lines of one service's log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if line.startswith('{"time"')]


def reached(folder: Path, began_unix_s: float) -> dict[str, float]:
    """Seconds from the start of the command to each milestone that was reached."""
    found: dict[str, float] = {}
    for milestone, (room, words) in MILESTONES.items():
        for log in sorted((folder / "logs").glob("*.log")):
            times = [
                at_unix_s(line) for line in said(log) if line["room"] == room and re.search(words, line["message"])
            ]
            if times:
                found[milestone] = min(times[0] - began_unix_s, found.get(milestone, LONGEST_S))
    steps = folder / "steps.jsonl"
    if steps.exists() and (rows := steps.read_text(encoding="utf-8").splitlines()):
        found["first step"] = json.loads(rows[0])["at_unix_s"] - began_unix_s
    return found


def start_once(out: Path, overrides: list[str]) -> dict[str, float]:
    """One `ratchet up`, from nothing to its first step."""
    folder = out / "start" / "addition"
    shutil.rmtree(folder, ignore_errors=True)
    command = [str(Path(sys.executable).parent / "ratchet"), "up", str(EXAMPLE), "--log-format", "json"]
    for override in [f"runs_folder={out / 'start'}", "evaluation.every_steps=1000", *overrides]:
        command += ["--set", override]
    began_unix_s, end_s = time.time(), time.monotonic() + LONGEST_S
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        found: dict[str, float] = {}
        while run.poll() is None and time.monotonic() < end_s and "first step" not in found:
            time.sleep(0.1)
            found = reached(folder, began_unix_s)
        run.send_signal(signal.SIGINT)
        run.wait()
    if "first step" not in found:
        raise SystemExit(f"no step within {LONGEST_S:.0f} s; see {folder / 'logs'}")
    return found


def engine_alone(overrides: list[str]) -> float:
    """Seconds from the start of a process to an engine that can sample, with nothing beside it."""
    command = [sys.executable, "-c", ENGINE_ALONE, str(EXAMPLE), *overrides]
    began_s = time.monotonic()
    quiet = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "PYTHONWARNINGS": "ignore"}
    subprocess.run(command, cwd=ROOT, env=quiet, check=True, capture_output=True)
    return time.monotonic() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / ".bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rounds, alone = [], []
    for _ in range(arguments.rounds):
        alone.append(engine_alone(arguments.overrides))
        rounds.append(start_once(out, arguments.overrides))
    names = list(dict.fromkeys(name for found in rounds for name in found))
    middle = {name: median(found[name] for found in rounds if name in found) for name in names}
    report = {
        "rounds": rounds,
        "median": middle,
        "engine_alone_s": alone,
        "first_group_beyond_engine_alone_s": middle["first group"] - median(alone),
        "first_group_after_engine_started_s": median(
            found["first group"] - found["engine started"] for found in rounds
        ),
        "machine": machine(("torch", "transformers", "vllm")),
    }
    (out / "start.json").write_text(json_text(report, indent=2) + "\n", encoding="utf-8")
    print(f"{'engine alone':16} {median(alone):6.1f} s  ({', '.join(f'{one:.1f}' for one in alone)})")
    for name in sorted(names, key=lambda name: middle[name]):
        each = ", ".join(f"{found[name]:.1f}" for found in rounds if name in found)
        print(f"{name:16} {middle[name]:6.1f} s  ({each})")
    print(f"first group      {report['first_group_beyond_engine_alone_s']:6.1f} s beyond the engine alone")
    print(
        f"first group      {report['first_group_after_engine_started_s']:6.1f} s after the engine of the run had started"
    )


if __name__ == "__main__":
    main()
