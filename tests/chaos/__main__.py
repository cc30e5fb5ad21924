"""Runs of real processes to which seeded random faults are done: a table of what came of each kind, and JSON of each run.

    python -m tests.chaos [--seed 0] [--faults 13] [--runs 12] [--out .bench/chaos] [--kind KIND ...]
    python -m tests.chaos --engine real --faults 5 --runs 1 --out .bench/chaos-real

A run of 13 faults takes four to six minutes on two cores. Every kind comes up as often as any other; --kind, which may be
repeated, leaves the others out. A run whose file run-SEED.json is in --out is not done again, so that the same command goes on
where it was stopped; the table has all the runs that are there. With --engine real replicas sample with vLLM, and each run is
compared with one of the same seed to which nothing was done: held-out accuracy may end at most 3 points below.

Exit code 1 if a run did not come to its last step by itself, its audit was not clean, or its accuracy is too low; its folder is
kept in --out then. What this machine cannot do, such as a small disk without the right to mount one, is left out, and the table
says why.
"""

import argparse
import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.machine import machine
from tests.chaos.clocks import library
from tests.chaos.faults import KINDS, NEED_NETWORK, draw
from tests.chaos.networks import Network
from tests.chaos.stage import Engine, make_example
from tests.chaos.storm import APART, Outcome, Storm

DISK_MIB = 256
MOST_POINTS = 3.0
"""By which held-out accuracy, in percent, may end below that of an undisturbed run."""


def kinds_of(seed: int, runs: int, faults: int, among: Sequence[str]) -> list[list[str]]:
    """Which kinds come up in each run: all of them equally often, in an order that the seed decides."""
    rng, drawn = random.Random(seed), list[str]()
    while len(drawn) < runs * faults:
        drawn += rng.sample(list(among), len(among))
    return [drawn[run * faults :][:faults] for run in range(runs)]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A disk of its own for a run, so that it can be filled; None where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def not_possible(folder: Path) -> dict[str, str]:
    """The kinds that cannot be done here, and why."""
    left_out = {}
    with small_disk(folder) as disk:
        if disk is None:
            left_out["disk full"] = "needs the right to mount a small disk"
    try:
        Network(APART[:1]).close()
    except OSError:
        left_out |= dict.fromkeys(NEED_NETWORK, "needs the right to make network namespaces")
    return left_out


def table(outcomes: Sequence[Outcome], left_out: dict[str, str]) -> str:
    """Markdown: a row for each kind."""
    lines = [
        "| fault | done | next steps after: median | worst | both replicas back: worst | audit | by hand |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    done = [fault for outcome in outcomes for fault in outcome.faults if fault.happened]
    for kind in KINDS:
        of_kind = [fault for fault in done if fault.kind == kind]
        if not of_kind:
            lines.append(f"| {kind} | 0 | | | | {left_out.get(kind, 'did not come up')} | |")
            continue
        steps = [fault.recovery_s for fault in of_kind if fault.recovery_s is not None]
        whole = [fault.whole_s for fault in of_kind if fault.whole_s is not None]
        clean = sum(fault.audit == "clean" for fault in of_kind)
        times = f"{statistics.median(steps):.1f} s | {max(steps):.1f} s" if steps else "never | never"
        back = f"{max(whole):.1f} s" if whole else "never"
        by_hand = sum(fault.by_hand is not None for fault in of_kind)
        lines.append(f"| {kind} | {len(of_kind)} | {times} | {back} | clean {clean} of {len(of_kind)} | {by_hand} |")
    good = sum(outcome.is_good for outcome in outcomes)
    lines.append(
        f"\n{len(done)} faults in {len(outcomes)} runs; {good} runs came to their last step with a clean audit."
    )
    return "\n".join(lines)


def points_lost(outcome: Outcome, undisturbed: Outcome) -> float | None:
    """By how much held-out accuracy, in percent, ended below that of the undisturbed run; None where one has none."""
    if outcome.accuracy is None or undisturbed.accuracy is None:
        return None
    return 100.0 * (undisturbed.accuracy - outcome.accuracy)


class Series:
    """Runs one after the other, each with a file in the same folder."""

    def __init__(self, out: Path, engine: Engine, left_out: dict[str, str]) -> None:
        self._out = out
        self._engine = engine
        self._has_network = not NEED_NETWORK & left_out.keys()

    def outcome(self, name: str, seed: int, kinds: Sequence[str]) -> Outcome:
        """What came of a run that was done before, or is done now."""
        file = self._out / f"{name}-{seed}.json"
        if file.exists():
            return Outcome.of(json.loads(file.read_text(encoding="utf-8"))["run"])
        rng = random.Random(seed)
        folder = self._out / f"disk-{seed}"
        with small_disk(folder) as disk:
            outcome = Storm(
                folder.resolve(),
                seed,
                [draw(kind, rng) for kind in kinds],
                disk=disk,
                engine=self._engine,
                has_network=self._has_network,
            ).run()
            if not outcome.is_good:
                shutil.copytree(folder, self._out / f"{name}-{seed}", dirs_exist_ok=True)
        shutil.rmtree(folder)
        report = {"machine": machine(["torch"]), "kinds": list(kinds), "run": outcome.to_dict()}
        file.write_text(json.dumps(report, indent=1), encoding="utf-8")
        said = "; ".join(outcome.problems) or ("well" if outcome.is_good else "not well")
        print(f"{name} {seed}: {len(outcome.faults)} faults in {outcome.seconds:.0f} s: {said}", flush=True)
        return outcome

    def outcomes(self) -> list[Outcome]:
        """What came of all runs in the folder to which faults were done."""
        return [
            Outcome.of(json.loads(file.read_text(encoding="utf-8"))["run"])
            for file in sorted(self._out.glob("run-*.json"))
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=13, help="in each run")
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(".bench/chaos"))
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be repeated")
    parser.add_argument("--engine", choices=["paced", "real"], default="paced")
    asked = parser.parse_args()
    make_example()
    asked.out.mkdir(parents=True, exist_ok=True)
    left_out = not_possible(asked.out / "trial")
    series = Series(asked.out, asked.engine, left_out)
    among = [kind for kind in asked.kind or KINDS if kind not in left_out]
    is_good = True
    said = [] if library() is not None else ["Redis's clock did not jump: that needs libfaketime."]
    for run, kinds in enumerate(kinds_of(asked.seed, asked.runs, asked.faults, among)):
        seed = asked.seed * 1000 + run
        outcome = series.outcome("run", seed, kinds)
        is_good &= outcome.is_good
        if asked.engine == "real":
            lost = points_lost(outcome, series.outcome("undisturbed", seed, []))
            is_good &= lost is not None and lost <= MOST_POINTS
            points = "not known" if lost is None else f"{lost:.1f} points below an undisturbed run"
            said.append(f"Seed {seed}: held-out accuracy {outcome.accuracy}, {points}.")
        text = "\n".join([table(series.outcomes(), left_out), *said])
        (asked.out / "chaos.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
