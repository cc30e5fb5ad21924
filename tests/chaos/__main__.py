"""Runs of real processes to which seeded random faults are done: a table of what came of each kind, and JSON beside it.

    python -m tests.chaos [--seed 0] [--faults 13] [--runs 12] [--out .bench/chaos] [--kind KIND ...]

A run of 13 faults takes four to six minutes on two cores. Every kind comes up as often as any other; --kind, which may be
repeated, leaves the others out. Exit code 1 if a run did not come to its last step by itself, or its audit was not clean; its
folder is kept in --out then. What this machine cannot do, such as a small disk without the right to mount one, is left out, and
the table says why.
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
from tests.chaos.faults import KINDS, NOT_DONE, draw
from tests.chaos.storm import EXAMPLE, Outcome, Storm

DISK_MIB = 256


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
    lines += [f"| {kind} | 0 | | | | {why} | |" for kind, why in NOT_DONE.items()]
    good = sum(outcome.is_good for outcome in outcomes)
    lines.append(
        f"\n{len(done)} faults in {len(outcomes)} runs; {good} runs came to their last step with a clean audit."
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=13, help="in each run")
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(".bench/chaos"))
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be repeated")
    asked = parser.parse_args()
    subprocess.run([sys.executable, str(EXAMPLE / "make_example.py")], check=True, stdout=subprocess.DEVNULL)
    asked.out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    left_out: dict[str, str] = {}
    with small_disk(asked.out / "disk") as disk:
        if disk is None:
            left_out["disk full"] = "needs the right to mount a small disk"
    among = [kind for kind in asked.kind or KINDS if kind not in left_out]
    for run, kinds in enumerate(kinds_of(asked.seed, asked.runs, asked.faults, among)):
        seed = asked.seed * 1000 + run
        with small_disk(asked.out / "disk") as disk:
            folder = asked.out / "disk"
            rng = random.Random(seed)
            outcome = Storm(folder.resolve(), seed, [draw(kind, rng) for kind in kinds], disk=disk).run()
            outcomes.append(outcome)
            if not outcome.is_good:
                shutil.copytree(folder, asked.out / f"seed-{seed}", dirs_exist_ok=True)
            if disk is None:
                shutil.rmtree(folder)
        said = "; ".join(outcome.problems) or ("well" if outcome.is_good else "not well")
        print(f"run {run} (seed {seed}): {len(outcome.faults)} faults in {outcome.seconds:.0f} s: {said}", flush=True)
        report = {
            "machine": machine(["torch"]),
            "asked": {"seed": asked.seed, "faults": asked.faults, "runs": asked.runs, "kinds": among},
            "runs": [one.to_dict() for one in outcomes],
        }
        (asked.out / "chaos.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        (asked.out / "chaos.md").write_text(table(outcomes, left_out) + "\n", encoding="utf-8")
    print(table(outcomes, left_out))
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
