"""A first look at Ratchet on one GPU: what dies, hangs or waits, and where a learner step spends its time.

    python -m benchmarks.gpu.check [--plan learner] [--cpu] [--only WORD,...] [--seconds 300]

Every step is a process of its own with a time limit. Each row of the table is printed as it comes and kept in check.json;
everything else that the steps say is in check.log. Both are written to $OUT, by default .bench/gpu. It measures; it
asserts nothing. --plan learner: steps of larger models against what others do, instead. --cpu: the same code, tiny and over
gloo, to test the check itself. README.md beside it says how to carry it to a machine without a network and how to read
what comes back.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.card import MARK, Card
from benchmarks.gpu.plan import PROGRAMS, Step, chosen

QUIET = {
    "PYTHONUNBUFFERED": "1",
    "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_IB_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}
"""For the steps; what the caller's environment says goes before."""


class Table:
    """Rows and log of one run, kept on disk as they come."""

    def __init__(self, out: Path, mode: dict[str, Any]) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._began_s = time.monotonic()
        self._rows: list[dict[str, Any]] = []
        self._mode = mode
        out.mkdir(parents=True, exist_ok=True)
        (out / "check.log").write_text("", encoding="utf-8")

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def add(self, step: str, values: dict[str, Any]) -> None:
        with self._lock:
            self._rows.append({"step": step, "at_s": round(self.elapsed_s(), 1), **values})
            rest = "  ".join(f"{key}={value}" for key, value in values.items() if key != "case")
            print(f"{self.elapsed_s():6.1f} | {step:<16} | {values['case']:<30} | {rest}", flush=True)
            kept = json.dumps({"mode": self._mode, "rows": self._rows}, indent=1)
            (self._out / "check.json").write_text(kept, encoding="utf-8")

    def log(self, step: str, line: str) -> None:
        with self._lock, (self._out / "check.log").open("a", encoding="utf-8") as log:
            log.write(f"{self.elapsed_s():6.1f} {step}: {line[:2000].rstrip()}\n")


def run_step(table: Table, step: Step, limit_s: float, card: Card) -> None:
    """Run a step in a process of its own, end its whole process group at the limit, and say how it ended."""
    if limit_s < 5:
        table.add(step.name, {"case": "END", "verdict": "not begun: no time left"})
        return
    command = [sys.executable, "-m", "benchmarks.gpu.check", "--models", str(card.models)]
    command += ["--step", step.work, "--argument", step.argument, *(["--cpu"] if card.cpu else [])]
    began_s, late = time.monotonic(), threading.Event()
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
        env=QUIET | os.environ | step.environment,
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def end() -> None:
        late.set()
        kill()

    def read() -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                if line.startswith(MARK):
                    table.add(step.name, json.loads(line.removeprefix(MARK)))
                else:
                    table.log(step.name, line)

    timer, reader = threading.Timer(limit_s, end), threading.Thread(target=read, daemon=True)
    timer.daemon = True
    timer.start()
    reader.start()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(limit_s + 10)
    timer.cancel()
    code = child.returncode
    kill()  # what it left behind
    reader.join(5)
    how = "does not die" if code is None else f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
    verdict = f"TIME LIMIT of {limit_s:.0f} s" if late.is_set() else how
    table.add(step.name, {"case": "END", "verdict": verdict, "seconds": round(time.monotonic() - began_s, 1)})


def run(card: Card, only: str, seconds: float, out: Path, program: str = "check") -> None:
    """All chosen steps of this program, one list after the other, within so many seconds."""
    card.models.mkdir(parents=True, exist_ok=True)
    table = Table(out, {"program": program, "cpu": card.cpu, "seconds": seconds, "only": only})
    for together in chosen(only, PROGRAMS[program]):
        left_s = seconds - table.elapsed_s()
        threads = [
            threading.Thread(
                target=run_step,
                args=(table, step, min(step.limit_s * (3 if card.cpu else 1), left_s), card),
                daemon=True,
            )
            for step in together
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(1.0, left_s + 12))
    print(f"done after {table.elapsed_s():.0f} s: {out / 'check.json'}, {out / 'check.log'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", choices=list(PROGRAMS), default="check", help="which steps (default: check)")
    parser.add_argument("--cpu", action="store_true", help="tiny and over gloo, to test the check itself")
    parser.add_argument("--only", default="", help="words, by comma: the steps whose name begins with one")
    parser.add_argument("--seconds", type=float, default=300.0, help="for all steps together")
    models = Path(tempfile.gettempdir()) / "ratchet_check_models"
    parser.add_argument("--models", type=Path, default=models, help="folder of the random models")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--argument", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    card = Card(asked.cpu, asked.models)
    if asked.step:
        module, _, function = asked.step.partition(":")
        getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)(card, asked.argument)
        return
    run(card, asked.only, asked.seconds, Path(os.environ.get("OUT", ".bench/gpu")), asked.plan)


if __name__ == "__main__":
    main()
