"""Samples a second, end to end: sampled, scored, learned from, weights in use again. Ratchet, then TRL, one after the
other on the same machine. The steady state leaves out the start and the first steps; both are reported beside it.

Both sides count every sample that a step consumed. TRL's step takes its groups as they come, those in which all samples
have the same reward included, although they teach nothing; Ratchet's takes as many groups that do teach something and drops
the others on the way. So what it dropped is counted as consumed, and what teaches something stands beside it, on both sides.

--case addition: the bundled example, 4-token answers, 0.8 M parameters. --case larger: 31 M parameters, 64-token answers
(larger.py). `make bench-end-to-end` prints a table of the first and writes .bench/end_to_end.json. Three minutes on 2 cores, and
ten for the second; leave the machine alone meanwhile.
"""

import argparse
import itertools
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


@dataclass(frozen=True, slots=True)
class Case:
    """What both sides run."""

    folder: Path
    """Holds model/ and data/train.jsonl."""
    groups: int
    """Groups of a step."""
    tokens: int
    """Tokens that an answer has at most."""
    reward: str
    settings: tuple[str, ...] = ()
    """Settings of Ratchet in addition to ratchet.toml, as `--set` takes them."""
    samples: int = 8
    """Samples of a group."""
    warm_up_steps: int = 10
    ratchet_steps: int = 120
    trl_steps: int = 60


def larger_case(folder: Path) -> Case:
    """Made on its first use."""
    from benchmarks.end_to_end import larger

    larger.make(folder)
    settings = (
        f"model.path={folder / 'model'}",
        f"prompts.source.path={folder / 'data' / 'train.jsonl'}",
        'prompts.grader="regex"',
        'prompts.options={match = "contains"}',
        "model.max_length=80",
        "rollout.sampling.max_tokens=64",
        "learner.groups_per_step=8",
        "weights.bucket_mib=32",
    )
    return Case(folder, 8, 64, "contains", settings, warm_up_steps=3, ratchet_steps=16, trl_steps=10)


def case_of(name: str, out: Path) -> Case:
    if name == "larger":
        return larger_case(out / "larger")
    return Case(ROOT / "examples" / "addition", 32, 4, "exact")


@dataclass(frozen=True, slots=True)
class Speed:
    samples_per_s: float
    """Consumed by the steps after the warm-up."""
    kept_samples_per_s: float
    """Consumed samples whose groups have different rewards, which alone teach something."""
    first_step_s: float
    """From the start of the command to the end of the first step."""
    steps: int
    total_s: float


def speed(ends_s: list[float], consumed: list[int], kept: list[float], total_s: float, *, warm_up: int) -> Speed:
    """ends_s: seconds from the start of the command to the end of each step, in order; consumed, kept: samples by then."""
    if len(ends_s) < warm_up + 2:
        raise SystemExit(f"only {len(ends_s)} steps; at least {warm_up + 2} are needed to measure a steady state")
    steady_s = ends_s[-1] - ends_s[warm_up - 1]
    return Speed(
        samples_per_s=(consumed[-1] - consumed[warm_up - 1]) / steady_s,
        kept_samples_per_s=(kept[-1] - kept[warm_up - 1]) / steady_s,
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


def measure_ratchet(case: Case, out: Path, steps: int) -> tuple[Speed, dict[str, Any]]:
    folder = out / "runs" / "end-to-end"
    shutil.rmtree(folder, ignore_errors=True)  # it would resume, or be finished already
    command = [str(Path(sys.executable).parent / "ratchet"), "up", str(HERE / "ratchet.toml")]
    settings = [f"runs_folder={out / 'runs'}", f"learner.steps={steps}", f"learner.checkpoint.every_steps={steps}"]
    for setting in (*settings, *case.settings):
        command += ["--set", setting]
    _, began_unix_s, seconds = run(command, {}, out / "ratchet.log")
    lines = (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = sorted(map(json.loads, lines), key=lambda row: row["step"])
    ends = [row["at_unix_s"] - began_unix_s for row in rows]
    kept = [case.samples * row["groups"]["trained"] for row in rows]
    dropped = [case.samples * sum(row["groups"]["dropped"].values()) for row in rows]
    consumed = [sum(both) for both in zip(kept, dropped, strict=True)]
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return speed(ends, consumed, list(map(float, kept)), seconds, warm_up=case.warm_up_steps), summary


def measure_trl(case: Case, out: Path, steps: int, threads: int) -> Speed:
    command = [sys.executable, str(HERE / "trl_side.py"), "--example", str(case.folder), "--scratch", str(out / "trl")]
    numbers = {
        "steps": steps,
        "threads": threads,
        "groups": case.groups,
        "samples": case.samples,
        "tokens": case.tokens,
    }
    for name, number in numbers.items():
        command += [f"--{name}", str(number)]
    command += ["--reward", case.reward]
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    stdout, _, seconds = run(command, environment, out / "trl.log")
    said = json.loads(stdout.strip().splitlines()[-1])
    ends = said["ends_s"]
    started = seconds - ends[-1]  # interpreter and imports, before the clock of the other process began
    step = case.groups * case.samples
    consumed = [step * (number + 1) for number in range(len(ends))]
    kept = list(itertools.accumulate(step * (1 - share) for share in said["equal_rewards"]))
    return speed([end + started for end in ends], consumed, kept, seconds, warm_up=case.warm_up_steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("addition", "larger"), default="addition")
    parser.add_argument("--out", type=Path, default=ROOT / ".bench")
    parser.add_argument("--ratchet-steps", type=int)
    parser.add_argument("--trl-steps", type=int)
    parser.add_argument("--only", choices=("ratchet", "trl"))
    arguments = parser.parse_args()
    out, threads = arguments.out.resolve(), len(os.sched_getaffinity(0))
    out.mkdir(parents=True, exist_ok=True)
    case = case_of(arguments.case, out)
    found: dict[str, Speed] = {}
    summary: dict[str, Any] = {}
    if arguments.only != "trl":
        found["ratchet"], summary = measure_ratchet(case, out, arguments.ratchet_steps or case.ratchet_steps)
    if arguments.only != "ratchet":
        found["trl"] = measure_trl(case, out, arguments.trl_steps or case.trl_steps, threads)
    both = (found["ratchet"], found["trl"]) if len(found) == 2 else None
    report = {
        **{name: asdict(result) for name, result in found.items()},
        "ratio": both and both[0].samples_per_s / both[1].samples_per_s,
        "kept_ratio": both and both[0].kept_samples_per_s / both[1].kept_samples_per_s,
        "case": arguments.case,
        "samples_per_step": case.groups * case.samples,
        "warm_up_steps": case.warm_up_steps,
        "ratchet_lag_steps": summary.get("lag_steps"),
        "ratchet_idle_ratio": summary.get("idle_ratio"),
        "machine": machine(("torch", "transformers", "trl", "vllm")),
    }
    (out / "end_to_end.json").write_text(json_text(report, indent=2) + "\n", encoding="utf-8")
    print(f"{'':8} {'samples/s':>10} {'kept/s':>8} {'first step':>11} {'steps':>6} {'total':>8}")
    for name, result in found.items():
        figures = f"{result.samples_per_s:10.1f} {result.kept_samples_per_s:8.1f} {result.first_step_s:9.1f} s"
        print(f"{name:8} {figures} {result.steps:6} {result.total_s:6.1f} s")
    if both:
        print(f"ratio    {report['ratio']:10.2f} {report['kept_ratio']:8.2f}")


if __name__ == "__main__":
    main()
