"""Makes ten faults in real runs of the bundled example, and writes what `ratchet why` says of each into a page.

    python -m tests.system.ten_faults [--only NAME ...] [--page docs/operating.md]

Each fault has a `ratchet up` of its own with the real engine, learner, verifier and Redis server. `ratchet why` is called every
second from the fault on, until its first sentence names the cause; the time until then is reported. About five minutes on two
idle cores. As root, because a network is cut by iptables and a full disk is a small file system of its own. Exit code 1 if a
sentence did not come.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from services.run.folder import RunFolder
from services.streams.redis_connection import RedisConnection
from tests.chaos.stage import EXAMPLE, ROOT, last_step, make_example
from tests.system.generated import write_part

RATCHET = str(Path(sys.executable).parent / "ratchet")
BEGIN = "<!-- ten faults: made by `python -m tests.system.ten_faults --page docs/operating.md` -->"
END = "<!-- ten faults: end -->"
STARTED_S = 900.0
NAMED_S = 600.0
GRADERS = '''
import time
from verifier.grader import Grader, Judgment

class Slow(Grader, frozen=True):
    """Takes half a second for a response."""

    def check(self, reference):
        """Any will do."""

    def score(self, response, reference):
        time.sleep(0.5)
        return Judgment(response == reference, "")

class Strict(Grader, frozen=True):
    """Fails where the reference is not a number, and does not look before the run."""

    def check(self, reference):
        """Any will do."""

    def score(self, response, reference):
        return Judgment(response.isdigit() and int(response) == int(reference), "")
'''


@dataclass(frozen=True)
class Run:
    """A `ratchet up` that runs, or has ended."""

    scratch: Path
    folder: RunFolder
    process: "subprocess.Popen[bytes]"

    def pid_of(self, service: str) -> int:
        """The process id of a service: the leader of its own session, which `ratchet up` has started."""
        mark = f"RATCHET_SERVICE={service}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if mark in environment and above == self.process.pid:
                return int(entry.name)
        raise SystemExit(f"there is no process of {service}")

    def why(self) -> str:
        """The first sentence of `ratchet why`."""
        said = subprocess.run([RATCHET, "why", str(self.folder.path)], check=True, capture_output=True, text=True)
        return said.stdout.splitlines()[0].removeprefix("1. ")


@dataclass(frozen=True)
class Fault:
    """One fault."""

    name: str
    made: str
    """How it is made, in words for the table."""
    says: str
    """What the first sentence has to match."""
    overrides: Callable[[Path], Sequence[str]] = lambda _: ()
    """Settings of the run; the argument is a folder of its own."""
    strike: Callable[[Run], None] | None = None
    """What is done to it after a few steps; None: the run begins with its fault."""


def kill(run: Run) -> None:
    os.kill(run.pid_of("rollout-0"), signal.SIGKILL)


def cut(run: Run) -> None:
    """Let the firewall drop every packet to and from the ports of the replica."""
    for port in sorted(_ports(run.pid_of("rollout-0"))):
        for end in ("--sport", "--dport"):
            rule = ["INPUT", "-i", "lo", "-p", "tcp", end, str(port), "-j", "DROP"]
            subprocess.run(["iptables", "-w", "-I", *rule], check=True)
            cut_rules.append(rule)


cut_rules: list[list[str]] = []
"""What `cut` has added; taken away at the end of the run."""


def mend_network() -> None:
    while cut_rules:
        subprocess.run(["iptables", "-w", "-D", *cut_rules.pop()], check=True)


def _ports(pid: int) -> set[int]:
    """The TCP ports of this machine that a process listens on or is connected from."""
    links = (os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[9] in inodes:
                found.add(int(columns[1].rpartition(":")[2], 16))
    return found


def fill_memory(run: Run) -> None:
    """Leave the run's Redis server as much memory as it uses."""
    connection = RedisConnection(run.folder.redis_url.read_text(encoding="utf-8"), deadline_s=5.0)
    connection.execute("CONFIG", "SET", "maxmemory", str(connection.memory().used_bytes))
    connection.close()


def fill_disk(run: Run) -> None:
    """Write zeros beside the run until nothing more fits."""
    with (run.folder.path.parent / "other").open("wb", buffering=0) as other:
        try:
            while True:
                other.write(bytes(2**20))
        except OSError:
            pass  # full, which is what is wanted


def rows(folder: Path, change: Callable[[int, dict[str, str]], dict[str, str]]) -> Sequence[str]:
    """The training data with changed rows, as a setting."""
    path = folder / "changed.jsonl"
    lines = (EXAMPLE / "data/train.jsonl").read_text(encoding="utf-8").splitlines()
    path.write_text("".join(json.dumps(change(i, json.loads(line))) + "\n" for i, line in enumerate(lines)), "utf-8")
    return [f"prompts.source.path={path}"]


FAULTS = (
    Fault(
        "a replica is killed", "`kill -9` of the process of `rollout-0`", "rollout-0 was killed by SIGKILL", strike=kill
    ),
    Fault(
        "the network to a replica is cut",
        "iptables drops every packet of its ports",
        "rollout-0 does not answer on its address",
        strike=cut,
    ),
    Fault(
        "a wrong `verifier.url`",
        "`verifier.url = http://127.0.0.1:9`",
        r"no group is scored: the scoring service does not answer at verifier.url = http://127\.0\.0\.1:9",
        lambda _: ["verifier.url=http://127.0.0.1:9"],
    ),
    Fault(
        "a poisoned dataset",
        "every tenth row has a reference that its grader, a package's, fails on",
        "groups? died.*ValueError",
        lambda folder: rows(
            folder,
            lambda i, row: {**row, "grader": "strict", "reference": "12x" if i % 10 == 0 else row["reference"]},
        ),
    ),
    Fault(
        "reward 0 for all",
        "every reference is a word that no response can be",
        "(no group can be trained on|nothing to train on): .*every reward was 0",
        lambda folder: rows(folder, lambda _, row: {**row, "reference": "none"}),
    ),
    Fault(
        "the disk is full",
        "the run folder is a file system of 96 MiB, filled by another file",
        "learner is not started again: no space is left on the disk",
        lambda _: ["learner.checkpoint.every_steps=5"],
        strike=fill_disk,
    ),
    Fault(
        "Redis is out of memory",
        "`CONFIG SET maxmemory` to what it uses",
        "the memory of Redis is full",
        strike=fill_memory,
    ),
    Fault(
        "a loss that is not finite",
        "`learner.optimizer.learning_rate = 1e12`",
        "give log-probs that are not finite|changed nothing: non_finite",
        lambda _: ["learner.optimizer.learning_rate=1e12", "learner.optimizer.warmup_steps=0"],
    ),
    Fault(
        "unequal weights",
        "`weights.max_gap_nats = 1e-9`, below the rounding of two engines",
        "learner is not started again: .*rollout-0.* nats",
        lambda _: ["weights.max_gap_nats=1e-9"],
    ),
    Fault(
        "a slow verifier",
        "a grader, a package's, that takes half a second for a response",
        "grading limits the run",
        lambda folder: [*rows(folder, lambda _, row: {**row, "grader": "slow"}), "verifier.processes=2"],
    ),
)


@contextmanager
def running(fault: Fault, scratch: Path) -> Iterator[Run]:
    """A run of the bundled example in which this fault is to be made."""
    package = scratch / "package"
    (package / "faulty-1.dist-info").mkdir(parents=True)
    (package / "faulty_graders.py").write_text(GRADERS, encoding="utf-8")
    (package / "faulty-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n", "utf-8")
    points = "[ratchet.graders]\nslow = faulty_graders:Slow\nstrict = faulty_graders:Strict\n"
    (package / "faulty-1.dist-info/entry_points.txt").write_text(points, encoding="utf-8")
    folder = RunFolder(scratch / "runs/addition")
    overrides = [
        f"runs_folder={scratch / 'runs'}",
        "learner.steps=4000",
        "evaluation.max_prompts=4",
        *fault.overrides(scratch),
    ]
    options = [part for override in overrides for part in ("--set", override)]
    environment = {name: value for name, value in os.environ.items() if name != "RATCHET_REDIS_URL"}
    with (scratch / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [RATCHET, "up", str(EXAMPLE / "addition.toml"), *options],
            env={**environment, "PYTHONPATH": str(package)},
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Run(scratch, folder, process)
    finally:
        begun_s = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        mend_network()
        print(f"    Ctrl-C took {time.monotonic() - begun_s:.1f} s; exit code {process.returncode}", flush=True)


def tried(fault: Fault, scratch: Path) -> tuple[str, float]:
    """The sentence, and the seconds from the fault to it. Raises SystemExit if it does not come."""
    (scratch / "runs").mkdir()
    disk = fault.strike is fill_disk
    if disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(scratch / "runs")], check=True)
    try:
        with running(fault, scratch) as run:
            end_s = time.monotonic() + STARTED_S
            while not run.folder.path.exists() or (fault.strike and last_step(run.folder) < 2):
                _check(run, end_s, "it does not begin")
                time.sleep(0.2)
            if fault.strike is not None:
                fault.strike(run)
            struck_s = time.monotonic()
            said = ""
            while not re.search(fault.says, said):
                if time.monotonic() > struck_s + NAMED_S:
                    raise SystemExit(f"{fault.name}: after {NAMED_S:.0f} s it says: {said}")
                time.sleep(1.0)
                if run.folder.settings.exists():
                    said = run.why()
            return said, time.monotonic() - struck_s
    finally:
        if disk:
            subprocess.run(["umount", str(scratch / "runs")], check=True)


def _check(run: Run, end_s: float, complaint: str) -> None:
    if run.process.poll() is not None or time.monotonic() > end_s:
        raise SystemExit(
            f"{complaint}:\n{textwrap.indent((run.scratch / 'up.log').read_text('utf-8')[-3000:], '    ')}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORDS", help="faults whose names have one of these words in them")
    parser.add_argument("--page", type=Path, help="the page to write the table into; default: it is printed")
    arguments = parser.parse_args()
    make_example()
    lines = ["| fault | made by | first sentence of `ratchet why` | after |", "| --- | --- | --- | ---: |"]
    missing = 0
    for fault in FAULTS:
        if arguments.only and not any(words in fault.name for words in arguments.only):
            continue
        with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
            try:
                said, after_s = tried(fault, Path(scratch))
            except SystemExit as late:
                print(late, file=sys.stderr)
                missing += 1
                continue
            said = said.replace(f"{scratch}/", "").replace("|", "\\|")
        lines.append(f"| {fault.name} | {fault.made} | {said} | {after_s:.0f} s |")
        print(lines[-1], flush=True)
    if arguments.page and not missing and not arguments.only:
        write_part(arguments.page, BEGIN, END, "\n".join(lines) + "\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
