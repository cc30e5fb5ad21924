"""Samples a second, end to end: sampled, scored, learned from, weights in use again. Ratchet, then TRL, one after the
other on the same machine. The steady state leaves out the start and the first steps; both are reported beside it.

Both sides count every sample that a step consumed. TRL's step takes 32 groups as they come, those in which all samples
have the same reward included, although they teach nothing; Ratchet's takes 32 groups that do teach something and drops the
others on the way. So what it dropped is counted as consumed, and what it kept is reported beside it.

`make bench-end-to-end` prints a table and writes .bench/end_to_end.json. About three minutes on 2 cores; leave the machine
alone meanwhile.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from services.run.json_text import json_text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WARM_UP_STEPS = 10
GROUP_SIZE = 8
SAMPLES_PER_STEP = 32 * GROUP_SIZE


@dataclass(frozen=True, slots=True)
class Speed:
    samples_per_s: float
    """Consumed by the steps after the warm-up."""
    kept_samples_per_s: float
    """Of these, the ones that a loss was computed on."""
    first_step_s: float
    """From the start of the command to the end of the first step."""
    steps: int
    total_s: float


def speed(ends_s: list[float], consumed: list[int], total_s: float, *, warm_up: int = WARM_UP_STEPS) -> Speed:
    """ends_s: seconds from the start of the command to the end of each step, in order; consumed: samples by then."""
    if len(ends_s) < warm_up + 2:
        raise SystemExit(f"only {len(ends_s)} steps; at least {warm_up + 2} are needed to measure a steady state")
    steady_s = ends_s[-1] - ends_s[warm_up - 1]
    return Speed(
        samples_per_s=(consumed[-1] - consumed[warm_up - 1]) / steady_s,
        kept_samples_per_s=SAMPLES_PER_STEP * (len(ends_s) - warm_up) / steady_s,
        first_step_s=ends_s[0],
        steps=len(ends_s),
        total_s=total_s,
    )


def run(command: list[str], environment: dict[str, str], log: Path) -> tuple[str, float, float]:
    """Standard output, Unix time of the start, seconds. Both streams are kept in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    began_unix_s, began_s = time.time(), time.monotonic()
    said = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - began_s
    log.write_text(said.stdout + said.stderr, encoding="utf-8")
    if said.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {said.returncode}; see {log}")
    return said.stdout, began_unix_s, seconds


def measure_ratchet(out: Path, steps: int) -> tuple[Speed, dict[str, Any]]:
    folder = out / "runs" / "end-to-end"
    shutil.rmtree(folder, ignore_errors=True)  # it would resume, or be finished already
    command = [str(Path(sys.executable).parent / "ratchet"), "up", str(HERE / "ratchet.toml")]
    settings = [f"runs_folder={out / 'runs'}", f"learner.steps={steps}", f"learner.checkpoint.every_steps={steps}"]
    for setting in settings:
        command += ["--set", setting]
    _, began_unix_s, seconds = run(command, {}, out / "ratchet.log")
    lines = (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = sorted(map(json.loads, lines), key=lambda row: row["step"])
    ends = [row["at_unix_s"] - began_unix_s for row in rows]
    consumed = [GROUP_SIZE * (row["groups"]["trained"] + sum(row["groups"]["dropped"].values())) for row in rows]
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return speed(ends, consumed, seconds), summary


def measure_trl(out: Path, steps: int, threads: int) -> Speed:
    command = [sys.executable, str(HERE / "trl_side.py"), "--example", str(ROOT / "examples" / "addition")]
    command += ["--scratch", str(out / "trl"), "--steps", str(steps), "--threads", str(threads)]
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    stdout, _, seconds = run(command, environment, out / "trl.log")
    ends = json.loads(stdout.strip().splitlines()[-1])["ends_s"]
    started = seconds - ends[-1]  # interpreter and imports, before the clock of the other process began
    consumed = [SAMPLES_PER_STEP * (number + 1) for number in range(len(ends))]
    return speed([end + started for end in ends], consumed, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / ".bench")
    parser.add_argument("--ratchet-steps", type=int, default=120)
    parser.add_argument("--trl-steps", type=int, default=60)
    parser.add_argument("--only", choices=("ratchet", "trl"))
    arguments = parser.parse_args()
    out, threads = arguments.out.resolve(), len(os.sched_getaffinity(0))
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Speed] = {}
    summary: dict[str, Any] = {}
    if arguments.only != "trl":
        found["ratchet"], summary = measure_ratchet(out, arguments.ratchet_steps)
    if arguments.only != "ratchet":
        found["trl"] = measure_trl(out, arguments.trl_steps, threads)
    ratio = found["ratchet"].samples_per_s / found["trl"].samples_per_s if len(found) == 2 else None
    report = {
        **{name: asdict(result) for name, result in found.items()},
        "ratio": ratio,
        "samples_per_step": SAMPLES_PER_STEP,
        "warm_up_steps": WARM_UP_STEPS,
        "ratchet_lag_steps": summary.get("lag_steps"),
        "ratchet_idle_ratio": summary.get("idle_ratio"),
        "machine": machine(("torch", "transformers", "trl", "vllm")),
    }
    (out / "end_to_end.json").write_text(json_text(report, indent=2) + "\n", encoding="utf-8")
    print(f"{'':8} {'samples/s':>10} {'kept/s':>8} {'first step':>11} {'steps':>6} {'total':>8}")
    for name, result in found.items():
        figures = f"{result.samples_per_s:10.0f} {result.kept_samples_per_s:8.0f} {result.first_step_s:9.1f} s"
        print(f"{name:8} {figures} {result.steps:6} {result.total_s:6.1f} s")
    if ratio is not None:
        print(f"ratio    {ratio:10.2f}")


if __name__ == "__main__":
    main()
