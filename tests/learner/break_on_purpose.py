"""Break the code on purpose, once for each property of docs/objective_properties.md, and see its tests fail.

    python -m tests.learner.break_on_purpose            # all of it: about half an hour on one core
    python -m tests.learner.break_on_purpose 19 27      # some properties
    python -m tests.learner.break_on_purpose --sample 4 # a few bugs, others after each change; `make mutants`

This works on a copy of the repository. The tests have to pass on the code as it is; then each change in broken_on_purpose.toml
is made alone, its tests are run, and it is reverted. The exit status is 1 when a test did not fail by an assertion.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("broken_on_purpose.toml")
UNBROKEN_S, BROKEN_S = 1800.0, 300.0
"""Limits on a run of pytest: of all tests of the bugs that were chosen, and of one. One of a real engine takes half a minute."""


@dataclass(frozen=True, slots=True)
class Breakage:
    """One bug, and the tests that must find it."""

    properties: list[int]
    """Numbers in docs/objective_properties.md."""
    bug: str
    """The bug in a few words; that page repeats them."""
    file: str
    text: str
    """Text that occurs once in the file."""
    replacement: str
    tests: list[str]
    """Node ids below tests/, with a parameter where one is enough."""

    def broken(self, root: Path) -> str:
        """The file with the bug in it. Raises ValueError unless the text is there exactly once."""
        source = (root / self.file).read_text(encoding="utf-8")
        if source.count(self.text) != 1:
            raise ValueError(f"{self.file} has {self.text!r} {source.count(self.text)} times; mend {TABLE.name}")
        return source.replace(self.text, self.replacement)


def breakages() -> list[Breakage]:
    return [Breakage(**entry) for entry in tomllib.loads(TABLE.read_text(encoding="utf-8"))["breakage"]]


def copy_tracked(folder: Path) -> None:
    """The files that git tracks, as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy2(ROOT / name, folder / name, follow_symlinks=False)


def python(folder: Path, *arguments: str, within_s: float) -> "subprocess.CompletedProcess[str]":
    """Run Python in the copy, without bytecode: a file that changes within a second and keeps its size would be read from the
    cache. Raises subprocess.TimeoutExpired."""
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=within_s,
    )


def outcome(folder: Path, tests: Sequence[str], *, within_s: float) -> str:
    """ "passed", "failed" with the message, or why it proves nothing: the test is not found, the code does not run, or the time
    is over.

    An example that fails is enough: hypothesis is not to look for a smaller one, which takes minutes where a run is an example.
    """
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    ids = [f"tests/{test}" for test in tests]
    options = ("-x", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--hypothesis-profile=unshrunk")
    try:
        done = python(folder, "-m", "pytest", *options, f"--junitxml={report}", *ids, within_s=within_s)
    except subprocess.TimeoutExpired:
        return f"no proof, not done within {within_s:.0f} s"
    if done.returncode == 0:
        return "passed"
    if done.returncode != 1:
        return f"no proof, pytest exits with {done.returncode}: {(done.stdout + done.stderr)[-300:]}"
    failure = next(ElementTree.parse(report).iter("failure"), None)
    if failure is None or "AssertionError" not in (failure.text or ""):
        return f"no proof, not an assertion: {done.stdout[-300:]}"
    return f"failed: {failure.get('message', '').removeprefix('AssertionError: ')[:80]}"


def sampled(count: int) -> list[Breakage]:
    """Bugs to plant for the committed files: the same for the same files, so that a failure can be repeated."""
    tree = subprocess.run(
        ["git", "rev-parse", "HEAD^{tree}"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    print(f"a sample of {count} for the files of tree {tree}", flush=True)
    everything = breakages()
    return random.Random(tree).sample(everything, min(count, len(everything)))


def main(chosen: Sequence[Breakage]) -> int:
    """Plant each of these bugs alone and run its tests; 1 when one of them did not fail."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        copy_tracked(folder)
        imported = Path(python(folder, "-c", "import learner; print(learner.__file__)", within_s=60).stdout.strip())
        if not imported.is_relative_to(folder):
            raise SystemExit(f"tests would import {imported}, which is not the copy in {folder}")
        unbroken = outcome(folder, sorted({test for b in chosen for test in b.tests}), within_s=UNBROKEN_S)
        if unbroken != "passed":
            raise SystemExit(f"the tests have to pass before anything is broken: {unbroken}")
        print("| | broken | test | | s |\n|---|---|---|---|---|", flush=True)
        survived = 0
        for breakage in chosen:
            (folder / breakage.file).write_text(breakage.broken(folder), encoding="utf-8")
            for test in breakage.tests:
                began = time.monotonic()
                seen = outcome(folder, [test], within_s=BROKEN_S)
                survived += not seen.startswith("failed")
                row = (
                    ", ".join(map(str, breakage.properties)),
                    breakage.bug,
                    f"`{test}`",
                    "STILL PASSED" if seen == "passed" else " ".join(seen.split()),
                    f"{time.monotonic() - began:.0f}",
                )
                print(f"| {' | '.join(row)} |", flush=True)
            copy2(ROOT / breakage.file, folder / breakage.file)
    print(f"\n{len(chosen)} bugs; tests that did not fail by them: {survived}")
    return int(survived > 0)


def _chosen() -> list[Breakage]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "properties", nargs="*", type=int, help="numbers in docs/objective_properties.md; all by default"
    )
    parser.add_argument("--sample", help="plant this many bugs, chosen by the committed files, or all")
    arguments = parser.parse_args()
    if arguments.sample not in (None, "all"):
        return sampled(int(arguments.sample))
    numbers = set(arguments.properties)
    return [b for b in breakages() if not numbers or numbers & set(b.properties)]


if __name__ == "__main__":
    sys.exit(main(_chosen()))
