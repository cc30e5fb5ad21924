"""A benchmark of two commits side by side, in turn, on the same machine.

    python -m benchmarks.two_commits BASE HEAD [--rounds 5] [--figures FILE] -- COMMAND...
    python -m benchmarks.two_commits main HEAD -- python -m benchmarks.step_cost --rounds 4
    make bench-two-commits BASE=main HEAD=HEAD COMMAND="python -m benchmarks.redis_streams"

Each commit gets a worktree in a temporary folder. Where it asks for other packages than this checkout has (requirements/cpu.lock
or pyproject.toml differ), or with --own-environments, `make .venv/.ready` gives it an environment of its own; else both run
in this one, each with its own modules. `python` in the command is that of the environment.

The commits take turns, a run each; which of them begins changes from round to round, and the first round is not counted.
Printed: HEAD over BASE, the median over the rounds with its 95 % interval, of wall time, of processor time with that of all child
processes, and of every number in the JSON file that the command writes (--figures, relative to the worktree). A ratio is said to
differ when its interval does not contain 1. Commits alone are compared: what is not committed is not looked at.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.ratios import Ratio, ratio

ROOT = Path(__file__).resolve().parents[1]
ASKS_FOR_PACKAGES = ("requirements/cpu.lock", "pyproject.toml")
Figures = dict[str, float]
"""By name; those of a JSON file by dotted place."""


@dataclass(frozen=True)
class Side:
    """A commit with the folder and the environment that it runs in."""

    name: str
    commit: str
    folder: Path
    python: Path


def git(repository: Path, *arguments: str) -> str:
    """What git says. Raises SystemExit with git's own words."""
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def checked_out(repository: Path, revisions: Sequence[str], *, own_environments: bool = False) -> Iterator[list[Side]]:
    """Worktrees of these commits, which are removed at the end. Raises SystemExit where a revision is none."""
    with tempfile.TemporaryDirectory(prefix="two-commits-") as scratch:
        folders: list[Path] = []
        try:
            sides = []
            for number, revision in enumerate(revisions):
                commit = git(repository, "rev-parse", "--verify", f"{revision}^{{commit}}")
                folder = Path(scratch) / f"{number}-{commit[:12]}"
                git(repository, "worktree", "add", "--detach", "--quiet", str(folder), commit)
                folders.append(folder)
                sides.append(Side(revision, commit, folder, _python(repository, folder, own_environments)))
            yield sides
        finally:
            for folder in folders:
                git(repository, "worktree", "remove", "--force", str(folder))


def _python(repository: Path, folder: Path, own: bool) -> Path:
    """The Python for a worktree: one of its own if it needs other packages."""
    differs = any(_content(repository / name) != _content(folder / name) for name in ASKS_FOR_PACKAGES)
    if not (own or differs):
        return Path(sys.executable)
    done = subprocess.run(["make", ".venv/.ready"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"no environment for {folder.name}:\n{done.stdout}{done.stderr}")
    return folder / ".venv/bin/python"


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def run(side: Side, command: Sequence[str], figures: Path | None) -> Figures:
    """One run. Raises SystemExit with what it printed if it fails, or has not written its figures."""
    written = side.folder / figures if figures is not None else None
    if written is not None:
        written.unlink(missing_ok=True)
    argv = [str(side.python) if command[0] == "python" else command[0], *command[1:]]
    path = f"{side.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PYTHONPATH": str(side.folder), "PATH": path}
    with tempfile.TemporaryFile("w+") as said:
        began_s = time.perf_counter()
        process = subprocess.Popen(argv, cwd=side.folder, env=environment, stdout=said, stderr=said, text=True)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began_s
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} at {side.name} ended with {process.returncode}:\n{said.read()}")
    found = {"wall seconds": wall_s, "processor seconds": used.ru_utime + used.ru_stime}
    if written is None:
        return found
    if not written.exists():
        raise SystemExit(f"{' '.join(command)} at {side.name} has not written {figures}")
    return found | dict(numbers(json.loads(written.read_text(encoding="utf-8"))))


def numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON value by its dotted place."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from numbers(one, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from numbers(one, f"{place}.{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, float(value)


def compared(base: Side, head: Side, command: Sequence[str], rounds: int, figures: Path | None) -> dict[str, Ratio]:
    """HEAD over BASE by figure, of those that both have, and that are finite and not 0 in every round."""
    pairs: list[tuple[Figures, Figures]] = []
    for number in range(rounds + 1):
        first, second = (base, head) if number % 2 else (head, base)
        taken = {id(side): run(side, command, figures) for side in (first, second)}
        print(f"round {number} of {rounds}" + ("" if number else ", not counted"), file=sys.stderr, flush=True)
        if number:
            pairs.append((taken[id(base)], taken[id(head)]))
    names = [name for name in pairs[0][0] if all(_is_usable(one.get(name)) for pair in pairs for one in pair)]
    return {name: ratio([after[name] / before[name] for before, after in pairs]) for name in names}


def _is_usable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value != 0


def verdict(found: Ratio) -> str:
    """Whether the two differ, as far as these rounds can say."""
    if found.low > 1:
        return "HEAD is higher"
    return "HEAD is lower" if found.high < 1 else "no difference shown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("head")
    parser.add_argument("--rounds", type=int, default=6, help="counted rounds; fewer than 6 give no 95 %% interval")
    parser.add_argument("--figures", type=Path, help="JSON file that the command writes, relative to the worktree")
    parser.add_argument("--own-environments", action="store_true", help="an environment for each commit in any case")
    parser.add_argument("--out", type=Path, default=Path(".bench/two_commits.json"))
    parser.add_argument("--repository", type=Path, default=ROOT, help="default: this checkout")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, command = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    if not command or given.rounds < 1 or shutil.which("git") is None:
        parser.error("give a command after --, --rounds of 1 or more, and have git installed")
    with checked_out(given.repository, [given.base, given.head], own_environments=given.own_environments) as sides:
        found = compared(sides[0], sides[1], command, given.rounds, given.figures)
        commits = {"base": sides[0].commit, "head": sides[1].commit}
    print(f"{given.head} ({commits['head'][:12]}) over {given.base} ({commits['base'][:12]}), {given.rounds} rounds")
    print("| figure | ratio (95 % interval) | |\n| --- | --- | --- |")
    for name, one in found.items():
        print(f"| {name} | {one} | {verdict(one)} |")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        **commits,
        "command": command,
        "rounds": given.rounds,
        "ratios": {name: asdict(one) for name, one in found.items()},
        "load_1_min": round(os.getloadavg()[0], 2),
        "cores": len(os.sched_getaffinity(0)),
    }
    given.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
